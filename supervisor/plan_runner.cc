#include "supervisor/plan_runner.h"

#include <poll.h>

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "common/usable_cores.h"
#include "supervisor/catalog.h"
#include "supervisor/mount_table.h"
#include "supervisor/plan_process.h"

namespace switchyard::supervisor {
namespace {

// They wait for a disk more than they compute; and those that hang should not keep the others.
constexpr int kAtOnce = 8;
// Until a killed planner is gone: more only if it hangs in the kernel.
constexpr Nanos kReaping = 100 * kMillisecond;

bool IsReadable(int fd) {
  pollfd polled = {fd, POLLIN, 0};
  return fd >= 0 && ::poll(&polled, 1, 0) > 0;
}

// Whatever the system's reason, it is no verdict.
absl::Status NotStarted(const absl::Status& why) {
  return absl::UnavailableError(absl::StrCat("no planner could be started: ", why.message()));
}

}  // namespace

struct PlanRunner::Running {
  Wanted wanted;
  std::unique_ptr<PlanProcess> process;
  Nanos deadline;
};

bool PlanRunner::stopped() const { return IsReadable(stop_fd_); }

PlanRunner::Wanted PlanRunner::For(const v1::Model& model, const std::string& device) {
  return {Key(ModelText(model), device), model.checkpoint()};
}

void PlanRunner::RunAhead(const std::vector<v1::Model>& models,
                          const std::vector<Device>& devices) {
  if (devices.empty()) return;
  std::deque<Wanted> wanted;
  for (const v1::Model& model : models) {
    wanted.push_back(For(model, model.device().empty() ? devices.front().name : model.device()));
  }
  Run(std::move(wanted));
}

absl::StatusOr<v1::Plan> PlanRunner::Plan(const v1::Model& model, const std::string& device) {
  const Wanted wanted = For(model, device);
  if (done_.count(wanted.key) == 0) Run({wanted});
  const auto it = done_.find(wanted.key);
  if (it == done_.end()) return absl::CancelledError("planning was stopped");
  return it->second;
}

// Until all have ended or are overdue, or it is to stop.
void PlanRunner::Run(std::deque<Wanted> wanted) {
  PlanProcess::ReapKilled(0);
  const size_t at_once = static_cast<size_t>(std::max(kAtOnce, UsableCores()));
  std::vector<Running> running;
  while (!stopped() && !(wanted.empty() && running.empty())) {
    while (!wanted.empty() && running.size() < at_once) {
      StartOne(std::move(wanted.front()), running);
      wanted.pop_front();
    }
    if (!running.empty()) Wait(running);
    Look(running);
  }
  running.clear();
  PlanProcess::ReapKilled(kReaping);
}

void PlanRunner::StartOne(Wanted wanted, std::vector<Running>& running) {
  if (starting_) starting_();
  if (!death_read_.valid()) {
    if (auto pipe = Pipe(); pipe.ok()) {
      death_read_ = std::move(pipe->first);
      death_write_ = std::move(pipe->second);
    } else {
      done_.insert_or_assign(wanted.key, NotStarted(pipe.status()));
      return;
    }
  }
  auto process = PlanProcess::Start(
      {wanted.key.first, wanted.key.second, purpose_ == PlanFor::kServe, death_read_.get()});
  if (!process.ok()) {
    done_.insert_or_assign(wanted.key, NotStarted(process.status()));
    return;
  }
  running.push_back({std::move(wanted), *std::move(process), clock_.Now() + longest_});
}

// Until one has something to read or ends, the first deadline, or it is to stop.
void PlanRunner::Wait(const std::vector<Running>& running) const {
  std::vector<pollfd> polled = {{stop_fd_, POLLIN, 0}};
  Nanos until = running.front().deadline;
  for (const Running& one : running) {
    polled.push_back({one.process->out(), POLLIN, 0});
    polled.push_back({one.process->err(), POLLIN, 0});
    until = std::min(until, one.process->silent() ? 0 : one.deadline);
  }
  const Nanos left = std::max<Nanos>(until - clock_.Now(), 0);
  ::poll(polled.data(), polled.size(), static_cast<int>(left / kMillisecond) + 1);
}

// What has come is read before anybody is called overdue: we may have stood still ourselves.
void PlanRunner::Look(std::vector<Running>& running) {
  const Nanos now = clock_.Now();
  const auto over = [&](Running& one) {
    auto plan = one.process->Look();
    if (!plan && now >= one.deadline) plan = NotAnswered(one.wanted.checkpoint);
    if (plan) done_.insert_or_assign(one.wanted.key, *std::move(plan));
    return plan.has_value();
  };
  running.erase(std::remove_if(running.begin(), running.end(), over), running.end());
}

absl::Status PlanRunner::NotAnswered(const std::string& checkpoint) const {
  const std::string mount = MountOf(checkpoint);
  return absl::DeadlineExceededError(absl::StrCat(
      "planning did not end within ", longest_ / kSecond, " s: ", checkpoint,
      mount.empty() ? "" : absl::StrCat(" (", mount, ")"),
      " may be on a file system that does not answer. See whether `ls` and `cat config.json` do "
      "there"));
}

}  // namespace switchyard::supervisor
