#include "supervisor/signs_of_life.h"

#include <gtest/gtest.h>

#include "supervisor/backoff.h"

namespace switchyard::supervisor {
namespace {

TEST(SignsOfLife, WhoeverHasSpokenMaySayNothingForFiveSeconds) {
  EXPECT_EQ(LongestSilence(true, 0), 5 * kSecond);
  EXPECT_EQ(LongestSilence(true, 3), 5 * kSecond);
}

TEST(SignsOfLife, AStartMayTakeTwiceAsLongAfterEachThatSaidNothing) {
  EXPECT_EQ(LongestSilence(false, 0), 10 * kSecond);
  EXPECT_EQ(LongestSilence(false, 1), 20 * kSecond);
  EXPECT_EQ(LongestSilence(false, 3), 80 * kSecond);
  EXPECT_EQ(LongestSilence(false, 1000), kLongestStart);
}

// No machine is too slow for a model that was not before: before it is given up, one of its workers
// has had all the time that there is for a start.
TEST(SignsOfLife, TheLastOfARowOfFailuresHasAllTheTime) {
  EXPECT_EQ(LongestSilence(false, kFailuresUntilFailed - 1), kLongestStart);
}

TEST(SignsOfLife, ALoadMayStandStillTwiceAsLongAfterEachThatDid) {
  EXPECT_EQ(LongestStandstill(0, 60 * kSecond), 20 * kSecond);
  EXPECT_EQ(LongestStandstill(1, 60 * kSecond), 40 * kSecond);
  EXPECT_EQ(LongestStandstill(2, 60 * kSecond), 60 * kSecond);
  EXPECT_EQ(LongestStandstill(1000, 120 * kSecond), 120 * kSecond);
}

}  // namespace
}  // namespace switchyard::supervisor
