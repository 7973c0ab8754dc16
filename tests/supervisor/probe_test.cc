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

// What `watch` says of a step as beats tell of it, every half a second while it runs.
class StepWatchTest : public ::testing::Test {
 protected:
  bool Beat(uint64_t steps, Nanos running, Nanos predicted = 0) {
    v1::Heartbeat beat;
    beat.set_steps(steps);
    beat.set_step_predicted_ns(static_cast<uint64_t>(predicted));
    return watch_.Hangs(beat, running, now_);
  }
  // When a step that never ends is found out, of that prediction.
  Nanos FoundOut(Nanos predicted) {
    Nanos running = 0;
    for (; !Beat(7, running, predicted); running += kSecond / 2) now_ += kSecond / 2;
    return running;
  }
  Nanos now_ = 100 * kSecond;
  StepWatch watch_;
};

TEST_F(StepWatchTest, OneThatHangsIsFoundOutByTheFirstBeatAfterItsTime) {
  EXPECT_EQ(FoundOut(0), 5'500 * kMillisecond);
  EXPECT_EQ(FoundOut(2 * kSecond), 20'500 * kMillisecond);
}

TEST_F(StepWatchTest, OneThatAPauseOfTheMachineFellIntoHasTheTimeToEnd) {
  EXPECT_FALSE(Beat(7, 60 * kSecond, 2 * kSecond));
  now_ += 1'900 * kMillisecond;
  EXPECT_FALSE(Beat(7, 62 * kSecond, 2 * kSecond));
  EXPECT_FALSE(Beat(8, 60 * kSecond, 2 * kSecond)) << "another one, in another pause";
  now_ += 2'000 * kMillisecond;
  EXPECT_TRUE(Beat(8, 62 * kSecond, 2 * kSecond));
}

TEST_F(StepWatchTest, BeatsThatAreReadTogetherAreOneLook) {
  EXPECT_FALSE(Beat(7, 6 * kSecond));
  EXPECT_FALSE(Beat(7, 7 * kSecond));
  now_ += kSecond / 2;
  EXPECT_TRUE(Beat(7, 7 * kSecond));
}

TEST_F(StepWatchTest, OneThatGoesOnInTimeIsForgotten) {
  EXPECT_FALSE(Beat(7, 60 * kSecond));
  now_ += kSecond;
  EXPECT_FALSE(Beat(7, kSecond)) << "it counts from when its weights were there";
  now_ += kSecond;
  EXPECT_FALSE(Beat(7, 6 * kSecond));
}

}  // namespace
}  // namespace switchyard::supervisor
