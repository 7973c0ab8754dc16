#pragma once

#include <atomic>

#include "common/clock.h"

namespace switchyard::worker {

// The time in which something was running, that which still runs included. One thread starts and
// stops, any thread reads without waiting; one word holds it all, so that no reader sees half of a
// change.
class BusyTime {
 public:
  void Start(Nanos now) {
    const Nanos word = word_;
    if (!Running(word)) word_ = ~(now - word);
  }
  void Stop(Nanos now) { word_ = Sum(word_, now); }
  Nanos At(Nanos now) const { return Sum(word_, now); }

 private:
  // At rest the word is the sum; while it runs, the complement of the time when it would have had
  // to start to have that sum without a rest.
  static bool Running(Nanos word) { return word < 0; }
  static Nanos Sum(Nanos word, Nanos now) { return Running(word) ? now - ~word : word; }

  std::atomic<Nanos> word_ = 0;
};

}  // namespace switchyard::worker
