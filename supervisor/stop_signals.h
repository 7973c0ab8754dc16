#pragma once

#include <functional>
#include <thread>

#include "common/clock.h"
#include "common/unique_fd.h"

namespace switchyard::supervisor {

// Hears SIGTERM and SIGINT on a thread of its own, so that the process ends in time whatever the
// event loop does: the first ends it within `grace` and `after`, the second within `after`, and the
// third at once. Who does not end by itself until then exits with status 1.
class StopSignals {
 public:
  struct Options {
    Nanos grace = 0;
    Nanos after = 0;
    // Of the first and the second. On the thread, as all of these, and never waits.
    std::function<void(int nth)> heard;
    std::function<void()> clean_up;  // before that exit
  };
  // `signals` is a signalfd of theirs; every thread holds them back.
  StopSignals(UniqueFd signals, Options options);
  // Nothing is heard any more, and nobody's time runs.
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

 private:
  enum class Event { kNone, kSignal, kTimeOver, kGone };
  void Run();
  Event Next(Nanos until);
  [[noreturn]] void Exit();

  const UniqueFd signals_;
  const Options options_;
  const SteadyClock clock_;
  UniqueFd gone_;  // an eventfd: readable when the object goes
  std::thread thread_;
};

}  // namespace switchyard::supervisor
