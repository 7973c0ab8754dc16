#include "supervisor/server_deadlines.h"

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "supervisor/server_call.h"

namespace switchyard::supervisor {
namespace {

constexpr Nanos kLookEvery = kSecond;

}  // namespace

void CallDeadlines::Set(CallQueue* queue, ServerCall* call, Nanos from_now) {
  std::lock_guard lock(mutex_);
  if (stopped_) return;
  deadlines_[call] = {clock_.Now() + from_now, call->weak_from_this()};
  queue_ = queue;
  if (!armed_) Arm(queue, std::min(from_now, kLookEvery));
}

void CallDeadlines::Clear(ServerCall* call) {
  std::lock_guard lock(mutex_);
  deadlines_.erase(call);
}

void CallDeadlines::Stop() {
  std::lock_guard lock(mutex_);
  stopped_ = true;
  deadlines_.clear();
  alarm_.Cancel();
}

// Holds mutex_.
void CallDeadlines::Arm(CallQueue* queue, Nanos from_now) {
  armed_ = true;
  const auto at = std::chrono::system_clock::now() + std::chrono::nanoseconds(from_now);
  alarm_.Set(queue->get(), at, queue->Begin(this));
}

void CallDeadlines::End(bool) {
  std::vector<std::shared_ptr<ServerCall>> late;  // outlives the lock: the last hold may be ours
  std::lock_guard lock(mutex_);
  armed_ = false;
  const Nanos now = clock_.Now();
  for (auto next = deadlines_.begin(); next != deadlines_.end();) {
    if (next->second.at > now) {
      ++next;
      continue;
    }
    if (auto call = next->second.call.lock()) late.push_back(std::move(call));
    next = deadlines_.erase(next);
  }
  for (const auto& call : late) call->Cancel();
  if (!deadlines_.empty()) Arm(queue_, kLookEvery);
}

}  // namespace switchyard::supervisor
