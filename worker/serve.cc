#include "worker/serve.h"

#include <google/protobuf/text_format.h>
#include <google/protobuf/util/json_util.h>
#include <unistd.h>

#include <cstdio>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/plan_exit.h"
#include "common/status_macros.h"
#include "common/unique_fd.h"
#include "worker/backend.h"
#include "worker/heartbeat.h"
#include "worker/lifeline.h"
#include "worker/opened_model.h"
#include "worker/sandbox.h"
#include "worker/service.h"
#include "worker/session.h"

namespace switchyard::worker {
namespace {

// What the supervisor leaves open for us.
constexpr int kConnection = 3;
constexpr int kDescriptorSocket = 4;
constexpr int kDeathPipe = 5;
// And for a planner, which is given it with our pid.
constexpr int kPlannersDeathPipe = 3;

// How long an orderly end may take; a long step is cut off then.
constexpr std::chrono::seconds kEndTime(2);

// Set once, from any thread, and waited for.
class Flag {
 public:
  void Set() {
    std::call_once(once_, [this] { promise_.set_value(); });
  }
  void Wait() { promise_.get_future().wait(); }

 private:
  std::once_flag once_;
  std::promise<void> promise_;
};

void ExitAfter(std::chrono::seconds time) {
  std::thread([time] {
    std::this_thread::sleep_for(time);
    ::_exit(0);
  }).detach();
}

absl::StatusOr<std::string> PlanAsText(const v1::Plan& plan, bool json) {
  std::string text;
  if (!json) {
    google::protobuf::TextFormat::PrintToString(plan, &text);
    return text;
  }
  google::protobuf::util::JsonPrintOptions print;
  print.always_print_primitive_fields = true;
  print.preserve_proto_field_names = true;
  auto status = google::protobuf::util::MessageToJsonString(plan, &text, print);
  if (!status.ok()) return absl::InternalError(std::string(status.message()));
  return absl::StrCat(text, "\n");
}

// The ops that a plan is made with go with their threads when it is made.
absl::StatusOr<std::unique_ptr<const OpenedModel>> Open(const Options& options, OpenFor purpose) {
  ASSIGN_OR_RETURN(auto ops, PlanningOps(options.device, options.threads, options.model));
  return OpenModel(options.model, options.device, *ops, purpose);
}

// Drivers differ in what they open.
absl::Status MaybeConfinedTooMuch(const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(status.message(),
                                   "; its worker is confined by Landlock: see whether "
                                   "switchyard-supervisor --no-sandbox helps"));
}

void WarnOfSlowPrefill(const Options& options, const kernels::Ops& ops, bool confined) {
  const std::string why = SlowPrefill(options.device, ops, options.model);
  if (why.empty()) return;
  LogWarning(why, confined ? "; the sandbox lets it be read in /usr, /usr/local/cuda, /opt/cuda, "
                             "/opt/nvidia, /nix/store and LD_LIBRARY_PATH"
                           : "");
}

// Codes that only the system's errors have here, and that may pass: UNKNOWN is EIO's. What shares
// its code with a verdict (ENOTCONN, EBUSY, ENODEV) is taken for one.
bool MayPass(const absl::Status& why) {
  switch (why.code()) {
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kDataLoss:
      return true;
    default:
      return false;
  }
}

}  // namespace

int ExitStatus(Mode mode, const absl::Status& end) {
  if (end.ok()) return 0;
  return mode == Mode::kPlan && MayPass(end) ? kNoVerdict : kVerdict;
}

absl::Status RunPlan(const Options& options) {
  BindToSupervisor(options.supervisor_pid);
  // What the kernel says of its sandbox says nothing of the model.
  if (auto sandbox = EnterSandbox(options); !sandbox.ok()) {
    return absl::UnavailableError(sandbox.status().message());
  }
  if (options.supervisor_pid > 0) WatchDeathPipe(UniqueFd(kPlannersDeathPipe));
  const OpenFor purpose = options.needs_weights ? OpenFor::kServe : OpenFor::kPlan;
  ASSIGN_OR_RETURN(auto model, Open(options, purpose));
  ASSIGN_OR_RETURN(std::string text, PlanAsText(model->plan, options.json));
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    return ErrnoStatus("writing the plan");
  }
  return absl::OkStatus();
}

absl::Status RunServe(const Options& options) {
  BindToSupervisor(options.supervisor_pid);
  ASSIGN_OR_RETURN(const Sandbox sandbox, EnterSandbox(options));
  const bool confined = sandbox.confined;
  SelectDevice(options.device);
  WatchDeathPipe(UniqueFd(kDeathPipe));

  Flag ended;
  std::unique_ptr<const OpenedModel> model;  // outlives who reads its checkpoint ahead
  std::unique_ptr<Session> session;
  Service service({.message = [&](v1::ToWorker message) { session->Handle(std::move(message)); },
                   .closed = [&] { ended.Set(); }});
  RETURN_IF_ERROR(service.Start(UniqueFd(kConnection)));
  // Opening the device and the checkpoint may take long and says nothing of itself.
  const SteadyClock clock;
  std::optional<Heartbeats> until_hello(std::in_place, clock, service,
                                        [] { return EngineStats(); });

  absl::StatusOr<Backend> opened = OpenBackend(options.device, options.threads, options.model);
  if (!opened.ok()) return confined ? MaybeConfinedTooMuch(opened.status()) : opened.status();
  Backend backend = *std::move(opened);
  WarnOfSlowPrefill(options, *backend.ops, confined);
  ASSIGN_OR_RETURN(model, Open(options, OpenFor::kServe));
  session =
      std::make_unique<Session>(Session::Parts{.model = *model,
                                               .device = std::move(backend.device),
                                               .ops = std::move(backend.ops),
                                               .descriptor_socket = UniqueFd(kDescriptorSocket),
                                               .cache_dir = options.cache_dir,
                                               .cache_bytes = options.cache_bytes,
                                               .remark = sandbox.remark,
                                               .outbox = service,
                                               .on_shutdown = [&] { ended.Set(); }});
  until_hello.reset();  // the session has its own
  service.Listen();
  ended.Wait();
  ExitAfter(kEndTime);
  session->Stop();
  service.Stop();
  return absl::OkStatus();
}

}  // namespace switchyard::worker
