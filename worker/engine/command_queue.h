#pragma once

#include <condition_variable>
#include <cstdint>
#include <limits>
#include <mutex>
#include <utility>
#include <variant>
#include <vector>

#include "common/clock.h"
#include "worker/engine/engine.h"

namespace switchyard::worker {

struct CancelCommand {
  RequestId id;
};
struct FinishCommand {
  RequestId id;
};
struct SuspendCommand {
  RequestId id;
  bool suspended;
};
using Command =
    std::variant<SequenceRequest, CancelCommand, FinishCommand, SuspendCommand, LeaseTarget>;

// What other threads ask of the engine, in order, and what wakes it.
class CommandQueue {
 public:
  void Push(Command command) {
    std::lock_guard<std::mutex> lock(mu_);
    commands_.push_back(std::move(command));
    woken_.notify_one();
  }
  std::vector<Command> TakeAll() {
    std::lock_guard<std::mutex> lock(mu_);
    return std::exchange(commands_, {});
  }
  bool empty() const {
    std::lock_guard<std::mutex> lock(mu_);
    return commands_.empty();
  }

  // Makes the current or next Wait return.
  void Wake() {
    std::lock_guard<std::mutex> lock(mu_);
    wake_ = true;
    woken_.notify_one();
  }
  void Stop() {
    std::lock_guard<std::mutex> lock(mu_);
    stopped_ = true;
    woken_.notify_one();
  }
  bool stopped() const {
    std::lock_guard<std::mutex> lock(mu_);
    return stopped_;
  }

  // Returns when there is a command, a wake-up or a stop, or after `at_most` (negative: no bound).
  void Wait(Nanos at_most) {
    // Beyond all time, and the clock's now added to it must not overflow.
    constexpr Nanos kForever = std::numeric_limits<Nanos>::max() / 2;
    std::unique_lock<std::mutex> lock(mu_);
    const auto ready = [this] { return stopped_ || wake_ || !commands_.empty(); };
    if (at_most < 0 || at_most > kForever) {
      woken_.wait(lock, ready);
    } else {
      woken_.wait_for(lock, std::chrono::nanoseconds(at_most), ready);
    }
    wake_ = false;
  }

 private:
  mutable std::mutex mu_;
  std::condition_variable woken_;
  std::vector<Command> commands_;
  bool wake_ = false;
  bool stopped_ = false;
};

}  // namespace switchyard::worker
