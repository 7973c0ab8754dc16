#include "supervisor/plan_process.h"

#include <fcntl.h>
#include <google/protobuf/text_format.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/plan_exit.h"
#include "common/status_macros.h"
#include "common/utf8.h"
#include "supervisor/spawn.h"
#include "supervisor/wait_status.h"

namespace switchyard::supervisor {
namespace {

constexpr size_t kMostOutput = 1 << 20;
constexpr size_t kMostError = 4 << 10;  // it stands in every status
// At a time: one that does not cease to write must not keep us from its deadline.
constexpr int kMostReads = 256;
constexpr int kLookAgainMs = 1;

struct Killed {
  std::mutex mutex;
  std::vector<pid_t> pids;
};

Killed& TheKilled() {
  static Killed killed;
  return killed;
}

bool Reaped(pid_t pid) { return ::waitpid(pid, nullptr, WNOHANG) != 0; }

// The end of `text`, as a message can show it: from the start of a line, if there is one.
std::string LastOf(const std::string& text, bool& cut) {
  std::string valid = ValidUtf8(std::string(absl::StripAsciiWhitespace(text)));
  if (valid.size() > kMostError) {
    cut = true;
    valid.erase(0, valid.size() - kMostError);
    const size_t line = valid.find('\n');
    const auto starts = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; };
    const auto begin = line != std::string::npos
                           ? valid.begin() + static_cast<std::ptrdiff_t>(line) + 1
                           : std::find_if(valid.begin(), valid.end(), starts);
    valid.erase(valid.begin(), begin);
  }
  return valid;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PlanProcess>> PlanProcess::Start(const Order& order) {
  ASSIGN_OR_RETURN(auto out, Pipe());
  ASSIGN_OR_RETURN(auto err, Pipe());
  ::fcntl(out.first.get(), F_SETFL, O_NONBLOCK);
  ::fcntl(err.first.get(), F_SETFL, O_NONBLOCK);
  SpawnSpec child;
  child.program = WorkerProgram();
  child.args = {"--plan",     "--model-text",     order.model_text,        "--device",
                order.device, "--supervisor-pid", absl::StrCat(::getpid())};
  if (order.needs_weights) child.args.push_back("--needs-weights");
  child.fds = {{out.second.get(), 1}, {err.second.get(), 2}, {order.death_pipe, 3}};
  std::unique_ptr<PlanProcess> process(new PlanProcess);
  ASSIGN_OR_RETURN(process->pid_, Spawn(child));
  process->pipes_[0] = std::move(out.first);
  process->pipes_[1] = std::move(err.first);
  return process;
}

PlanProcess::~PlanProcess() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  Killed& killed = TheKilled();
  const std::lock_guard lock(killed.mutex);
  killed.pids.push_back(pid_);
}

std::optional<absl::StatusOr<v1::Plan>> PlanProcess::Look() {
  for (int i = 0; i < 2; ++i) ReadSome(i);
  if (too_long_) return absl::InternalError("a plan of more than 1 MiB");
  int wait_status = 0;
  if (!silent() || ::waitpid(pid_, &wait_status, WNOHANG) != pid_) return std::nullopt;
  pid_ = 0;
  return Result(wait_status);
}

void PlanProcess::ReadSome(int pipe) {
  char buffer[4096];
  for (int i = 0; i < kMostReads && pipes_[pipe].valid() && !too_long_; ++i) {
    const ssize_t got = ::read(pipes_[pipe].get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got > 0) {
      text_[pipe].append(buffer, static_cast<size_t>(got));
    } else {
      pipes_[pipe].Reset();
    }
    too_long_ = text_[0].size() > kMostOutput;
    if (text_[1].size() > 4 * kMostError) {
      text_[1].erase(0, text_[1].size() - 2 * kMostError);
      error_cut_ = true;
    }
  }
}

absl::StatusOr<v1::Plan> PlanProcess::Result(int wait_status) const {
  if (!WIFEXITED(wait_status) || WEXITSTATUS(wait_status) != 0) {
    bool cut = error_cut_;
    std::string message = LastOf(text_[1], cut);
    if (cut) message = absl::StrCat("(of more, the last 4 KiB) ", message);
    const int exit_status = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -1;
    if (!message.empty() && exit_status == kVerdict) return absl::InvalidArgumentError(message);
    if (!message.empty() && exit_status == kNoVerdict) return absl::UnavailableError(message);
    return absl::InternalError(absl::StrCat("planning ended with ", DescribeWaitStatus(wait_status),
                                            message.empty() ? "" : ": ", message));
  }
  v1::Plan plan;
  if (!google::protobuf::TextFormat::ParseFromString(text_[0], &plan)) {
    return absl::InternalError("the worker printed a plan that cannot be read");
  }
  return plan;
}

void PlanProcess::ReapKilled(Nanos patience) {
  Killed& killed = TheKilled();
  const std::lock_guard lock(killed.mutex);
  const SteadyClock clock;
  const Nanos deadline = clock.Now() + patience;
  while (true) {
    killed.pids.erase(std::remove_if(killed.pids.begin(), killed.pids.end(), Reaped),
                      killed.pids.end());
    if (killed.pids.empty() || clock.Now() >= deadline) return;
    ::poll(nullptr, 0, kLookAgainMs);
  }
}

}  // namespace switchyard::supervisor
