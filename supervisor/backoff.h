#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>

#include "common/clock.h"

namespace switchyard::supervisor {

constexpr int kFailuresUntilFailed = 5;             // with no request finished in between
constexpr int kFailuresUntilSpared = 3;             // then nobody gives way for kHealthyAfter
constexpr Nanos kHealthyAfter = 600 * kSecond;      // a worker that lived this long starts afresh
constexpr Nanos kProbeFailedEvery = 300 * kSecond;  // then a failed model is tried again

// How long after the `n`th failure (from 1) the next launch waits: 0.5 s x 2^(n - 1), at most 60 s,
// less up to a quarter of it by `jitter` (from 0 to 1), so that workers which died together do not
// come back together.
inline Nanos BackoffDelay(int n, double jitter) {
  constexpr Nanos kFirst = kSecond / 2;
  constexpr Nanos kMost = 60 * kSecond;
  if (n <= 0) return 0;
  const Nanos whole = n > 8 ? kMost : std::min(kMost, kFirst << (n - 1));
  return whole - static_cast<Nanos>(static_cast<double>(whole) * jitter / 4);
}

// From 0 to 1, different for every model and failure; no clock and no state, so that a simulated
// life can be lived again.
inline double BackoffJitter(std::string_view model, uint64_t failure) {
  uint64_t hash = 14695981039346656037u;  // FNV-1a
  for (const char c : model) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  hash = (hash ^ failure) * 0x9E3779B97F4A7C15u;
  return static_cast<double>(hash >> 11) / static_cast<double>(uint64_t{1} << 53);
}

// A count of failures after one more, of a worker that had lived for `lived`.
inline int FailuresAfter(int before, Nanos lived) {
  return (lived >= kHealthyAfter ? 0 : before) + 1;
}

}  // namespace switchyard::supervisor
