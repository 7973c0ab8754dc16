#pragma once

#include <algorithm>

#include "common/clock.h"

namespace switchyard::supervisor {

constexpr int kFailuresUntilFailed = 5;
constexpr Nanos kHealthyAfter = 600 * kSecond;

// How long after the `n`th failure in a row (from 1) the next launch waits.
inline Nanos BackoffDelay(int n) {
  constexpr Nanos kFirst = kSecond / 2;
  constexpr Nanos kMost = 60 * kSecond;
  return n <= 0 ? 0 : n > 8 ? kMost : std::min(kMost, kFirst << (n - 1));
}

// The number of failures in a row after one more, of a worker that had lived for `lived`.
inline int FailuresAfter(int before, Nanos lived) {
  return (lived >= kHealthyAfter ? 0 : before) + 1;
}

}  // namespace switchyard::supervisor
