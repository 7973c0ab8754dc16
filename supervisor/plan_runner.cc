#include "supervisor/plan_runner.h"

#include <google/protobuf/text_format.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/clock.h"
#include "common/status_macros.h"
#include "common/unique_fd.h"
#include "common/usable_cores.h"
#include "supervisor/catalog.h"
#include "supervisor/spawn.h"
#include "supervisor/wait_status.h"

namespace switchyard::supervisor {
namespace {

constexpr Nanos kTimeout = 60 * kSecond;
constexpr size_t kMostOutput = 1 << 20;

absl::Status Stopped() { return absl::CancelledError("planning was stopped"); }

bool IsReadable(int fd) {
  pollfd polled = {fd, POLLIN, 0};
  return fd >= 0 && ::poll(&polled, 1, 0) > 0;
}

// One `--plan` process: started, then collected.
class PlanProcess {
 public:
  static absl::StatusOr<std::unique_ptr<PlanProcess>> Start(const std::string& model_text,
                                                            const std::string& device,
                                                            int stop_fd) {
    ASSIGN_OR_RETURN(auto out, Pipe());
    ASSIGN_OR_RETURN(auto err, Pipe());
    SpawnSpec child;
    child.program = WorkerProgram();
    child.args = {"--plan", "--model-text", model_text, "--device", device};
    child.fds = {{out.second.get(), 1}, {err.second.get(), 2}};
    auto process = std::make_unique<PlanProcess>();
    ASSIGN_OR_RETURN(process->pid_, Spawn(child));
    process->stop_fd_ = stop_fd;
    process->pipes_[0] = std::move(out.first);
    process->pipes_[1] = std::move(err.first);
    return process;
  }

  ~PlanProcess() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

  absl::StatusOr<v1::Plan> Collect() {
    if (absl::Status status = ReadAll(); !status.ok()) return status;
    int wait_status = 0;
    while (::waitpid(pid_, &wait_status, 0) < 0 && errno == EINTR) {
    }
    pid_ = 0;
    if (!WIFEXITED(wait_status) || WEXITSTATUS(wait_status) != 0) {
      const std::string message(absl::StripAsciiWhitespace(text_[1]));
      if (!message.empty() && WIFEXITED(wait_status)) return absl::InvalidArgumentError(message);
      return absl::InternalError(
          absl::StrCat("planning ended with ", DescribeWaitStatus(wait_status), " ", message));
    }
    v1::Plan plan;
    if (!google::protobuf::TextFormat::ParseFromString(text_[0], &plan)) {
      return absl::InternalError("the worker printed a plan that cannot be read");
    }
    return plan;
  }

 private:
  // Both pipes, whichever has something, until both are closed or it is to stop.
  absl::Status ReadAll() {
    const SteadyClock clock;
    const Nanos deadline = clock.Now() + kTimeout;
    while (pipes_[0].valid() || pipes_[1].valid()) {
      pollfd polled[3] = {
          {pipes_[0].get(), POLLIN, 0}, {pipes_[1].get(), POLLIN, 0}, {stop_fd_, POLLIN, 0}};
      const Nanos left = deadline - clock.Now();
      if (left <= 0) return absl::DeadlineExceededError("planning took more than a minute");
      if (::poll(polled, 3, static_cast<int>(left / kMillisecond) + 1) < 0 && errno != EINTR) {
        return ErrnoStatus("poll");
      }
      if (polled[2].revents != 0) return Stopped();
      for (int i = 0; i < 2; ++i) {
        if (polled[i].revents != 0) RETURN_IF_ERROR(ReadSome(i));
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadSome(int i) {
    char buffer[4096];
    const ssize_t got = ::read(pipes_[i].get(), buffer, sizeof(buffer));
    if (got > 0) {
      text_[i].append(buffer, got);
    } else if (got == 0 || errno != EINTR) {
      pipes_[i].Reset();
    }
    if (text_[i].size() > kMostOutput) return absl::InternalError("a plan of more than 1 MiB");
    return absl::OkStatus();
  }

  pid_t pid_ = 0;
  int stop_fd_ = -1;
  UniqueFd pipes_[2];  // standard output, standard error
  std::string text_[2];
};

}  // namespace

bool PlanRunner::stopped() const { return IsReadable(stop_fd_); }

void PlanRunner::RunAhead(const std::vector<v1::Model>& models,
                          const std::vector<Device>& devices) {
  if (devices.empty()) return;
  const size_t at_once = static_cast<size_t>(std::max(2, UsableCores()));
  for (size_t begin = 0; begin < models.size() && !stopped(); begin += at_once) {
    std::vector<std::pair<Key, std::unique_ptr<PlanProcess>>> running;
    for (size_t i = begin; i < std::min(models.size(), begin + at_once); ++i) {
      const std::string& device =
          models[i].device().empty() ? devices.front().name : models[i].device();
      Key key(ModelText(models[i]), device);
      auto process = PlanProcess::Start(key.first, device, stop_fd_);
      if (process.ok()) running.emplace_back(std::move(key), *std::move(process));
    }
    for (auto& [key, process] : running) done_.insert_or_assign(key, process->Collect());
  }
}

absl::StatusOr<v1::Plan> PlanRunner::Plan(const v1::Model& model, const std::string& device) {
  Key key(ModelText(model), device);
  if (auto it = done_.find(key); it != done_.end()) return it->second;
  if (stopped()) return Stopped();
  ASSIGN_OR_RETURN(auto process, PlanProcess::Start(key.first, device, stop_fd_));
  auto plan = process->Collect();
  done_.insert_or_assign(key, plan);
  return plan;
}

}  // namespace switchyard::supervisor
