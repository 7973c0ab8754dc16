#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <utility>

#include "supervisor/ports.h"

namespace switchyard::supervisor {

// A virtual clock and everything that is due on it, in order of time, then of posting.
class FakeTimers final : public Timers {
 public:
  Id Start(Nanos delay, std::function<void()> fire) override {
    const Id id = ++last_;
    due_of_[id] = now_ + std::max<Nanos>(delay, 0);
    queue_[{due_of_[id], id}] = std::move(fire);
    return id;
  }
  void Stop(Id id) override {
    auto it = due_of_.find(id);
    if (it == due_of_.end()) return;
    queue_.erase({it->second, id});
    due_of_.erase(it);
  }
  Nanos Now() const override { return now_; }

  // Runs the next thing that is due; false if there is none.
  bool Step() {
    if (queue_.empty()) return false;
    auto it = queue_.begin();
    now_ = std::max(now_, it->first.first);
    auto fire = std::move(it->second);
    due_of_.erase(it->first.second);
    queue_.erase(it);
    fire();
    return true;
  }
  // The machine has slept, or nobody ran: what was due meanwhile is late.
  void Jump(Nanos time) {
    now_ += time;
    slept_ += time;
  }
  // The time without those jumps.
  Nanos Awake() const { return now_ - slept_; }
  // Whether something is due now.
  bool Behind() const { return !queue_.empty() && queue_.begin()->first.first <= now_; }
  size_t size() const { return queue_.size(); }

 private:
  Nanos now_ = 1000 * kSecond;
  Nanos slept_ = 0;
  Id last_ = 0;
  std::map<std::pair<Nanos, Id>, std::function<void()>> queue_;
  std::map<Id, Nanos> due_of_;
};

}  // namespace switchyard::supervisor
