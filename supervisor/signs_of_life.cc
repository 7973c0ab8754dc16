#include "supervisor/signs_of_life.h"

#include <algorithm>

namespace switchyard::supervisor {
namespace {

constexpr Nanos kHeartbeats = 5 * kSecond;  // ten of them
constexpr Nanos kFirstSign = 10 * kSecond;
constexpr int kMostDoublings = 4;  // then it is kLongestStart

}  // namespace

Nanos LongestSilence(bool spoke, int silent_starts) {
  if (spoke) return kHeartbeats;
  return std::min(kFirstSign << std::min(silent_starts, kMostDoublings), kLongestStart);
}

}  // namespace switchyard::supervisor
