#pragma once

#include <cstdint>

#include "common/clock.h"

namespace switchyard::supervisor {

// How fast bytes have moved of late: all bytes over all time, where each move counts half as much
// as the next. So a large move counts for more than a small one, which measures mostly latency.
class RateMeter {
 public:
  // `assumed` bytes a second, until something has moved.
  explicit RateMeter(double assumed) : bytes_per_second_(assumed) {}

  void Add(uint64_t bytes, Nanos time) {
    if (bytes == 0 || time <= 0) return;
    bytes_ = bytes_ / 2 + static_cast<double>(bytes);
    time_ = time_ / 2 + static_cast<double>(time);
    bytes_per_second_ = bytes_ / time_ * kSecond;
  }
  double bytes_per_second() const { return bytes_per_second_; }

 private:
  double bytes_ = 0;
  double time_ = 0;
  double bytes_per_second_;
};

}  // namespace switchyard::supervisor
