#include "supervisor/probe.h"

#include <gtest/gtest.h>

namespace switchyard::supervisor {
namespace {

TEST(Probe, IsDueAnIntervalAfterTheLastProof) {
  EXPECT_EQ(ProbeDueAt({100, 0, false}, 60, 0), 160);
  EXPECT_EQ(ProbeDueAt({100, 130, false}, 60, 0), 190);
  EXPECT_EQ(ProbeDueAt({100, 90, false}, 60, 0), 160);  // it slept since
  EXPECT_EQ(ProbeDueAt({100, 130, false}, 60, 1), 175);
}

TEST(Probe, OfWhatIsDoubtedIsDueAtOnce) { EXPECT_EQ(ProbeDueAt({100, 130, true}, 60, 0), 100); }

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
