#include "supervisor/signs_of_life.h"

#include <algorithm>

namespace switchyard::supervisor {
namespace {

constexpr Nanos kHeartbeats = 5 * kSecond;  // ten of them
constexpr Nanos kFirstSign = 10 * kSecond;
constexpr Nanos kStandstill = 20 * kSecond;
constexpr int kMostDoublings = 4;  // then it is the longest

Nanos Doubled(Nanos first, int times, Nanos longest) {
  return std::min(first << std::min(times, kMostDoublings), longest);
}

}  // namespace

Nanos LongestSilence(bool spoke, int silent_starts) {
  return spoke ? kHeartbeats : Doubled(kFirstSign, silent_starts, kLongestStart);
}

Nanos LongestStandstill(int before, Nanos longest) { return Doubled(kStandstill, before, longest); }

}  // namespace switchyard::supervisor
