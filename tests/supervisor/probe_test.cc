#include "supervisor/probe.h"

#include <gtest/gtest.h>

namespace switchyard::supervisor {
namespace {

TEST(Probe, IsDueAfterAnIntervalLessItsJitter) {
  EXPECT_EQ(ProbeAfter(60, 0), 60);
  EXPECT_EQ(ProbeAfter(60, 1), 45);
}

TEST(Probe, TheTimeWithoutProofAddsUpOverTurns) {
  Unproved unproved;
  unproved.Could(true, 100);
  EXPECT_EQ(unproved.Spent(130), 30);
  unproved.Could(false, 140);
  EXPECT_EQ(unproved.Spent(200), 40);
  unproved.Could(true, 300);
  unproved.Could(true, 305);
  EXPECT_EQ(unproved.Spent(310), 50);
  unproved.Reset(320);
  EXPECT_EQ(unproved.Spent(330), 10);
  unproved.Could(false, 330);
  unproved.Reset(340);
  EXPECT_EQ(unproved.Spent(400), 0);
}

TEST(Probe, StandsStillIfNoStepHasEndedAndNoneMayStillRun) {
  v1::Heartbeat beat;
  beat.set_steps(7);
  EXPECT_TRUE(StandsStill(7, beat));
  EXPECT_FALSE(StandsStill(6, beat));
  beat.set_step_running_ns(4 * kSecond);
  EXPECT_FALSE(StandsStill(7, beat));
  beat.set_step_running_ns(6 * kSecond);
  EXPECT_TRUE(StandsStill(7, beat));
  beat.set_step_predicted_ns(kSecond);
  EXPECT_FALSE(StandsStill(7, beat));
}

TEST(Probe, AStepMayTakeTenTimesItsPredictionAndFiveSeconds) {
  EXPECT_EQ(LongestStep(0), 5 * kSecond);
  EXPECT_EQ(LongestStep(kSecond), 10 * kSecond);
  EXPECT_EQ(LongestStep(UINT64_MAX), 36000 * kSecond);
}

}  // namespace
}  // namespace switchyard::supervisor
