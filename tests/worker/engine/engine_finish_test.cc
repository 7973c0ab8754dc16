// A lease that goes for good, with the worker: whoever has begun finishes first, paused or not.

#include <algorithm>

#include "tests/worker/engine/lease_fixture.h"

namespace switchyard::worker {
namespace {

class EngineFinishTest : public LeaseTest {
 protected:
  // So many that the smallest pool does not hold, and of which some have given up their KV.
  void BeginTooMany(RequestId count) {
    h().GrantSmallest();
    for (RequestId id = 1; id <= count; ++id) Submit(id, 100, 300);
    while (engine().Stats().paused < 2) h().Iterate(1);
  }
};

INSTANTIATE_TEST_SUITE_P(Launching, EngineFinishTest,
                         testing::Values(Launching::kEach, Launching::kAhead, Launching::kGraphs));

TEST_P(EngineFinishTest, WhoGaveUpItsKvComesBackAndFinishesToo) {
  BeginTooMany(4);
  Submit(5, 20, 5);
  h().TakeAllFinished();
  h().Settle();
  int paused = 0;
  for (RequestId id = 1; id <= 4; ++id) {
    ExpectAnswer(id);
    paused += h().of(id).paused;
  }
  EXPECT_GT(paused, 2) << "some more did, for those that came back";
  EXPECT_EQ(last().paused, 0);
  EXPECT_EQ(last().waiting, 1);
  EXPECT_TRUE(h().of(5).tokens.empty());
  EXPECT_EQ(h().faults().committed(), 0u);
}

TEST_P(EngineFinishTest, SoDoesWhatIsInHostMemory) {
  h().GrantAll();
  for (RequestId id = 1; id <= 3; ++id) Submit(id, 400, 80);
  RunUntilTokens(3, 10);
  h().TakeAll(/*pause=*/true);
  h().Settle();
  ASSERT_EQ(last().paused, 3);
  h().GrantSmallest(kHost);  // of which not all are back at once
  RunUntilTokens(1, h().of(1).tokens.size() + 5);
  ASSERT_GT(last().host_kv_bytes, 0u);
  h().TakeAllFinished();
  h().Settle();
  for (RequestId id = 1; id <= 3; ++id) ExpectAnswer(id);
  EXPECT_EQ(last().host_kv_bytes, 0u);
}

TEST_P(EngineFinishTest, AReaderThatIsSlowIsWaitedFor) {
  h().GrantAll();
  Submit(1, 20, 300);
  Submit(2, 20, 50);
  RunUntilTokens(2, 5);
  engine().Suspend(1, true);
  h().TakeAllFinished();
  while (h().of(2).end == SequenceEnd::kNone) h().Iterate(1);
  h().Iterate(10);
  EXPECT_FALSE(last().settled);
  EXPECT_EQ(last().weight_bytes, image());
  engine().Suspend(1, false);
  h().Settle();
  ExpectAnswer(1);
  EXPECT_EQ(last().weight_bytes, 0u);
}

TEST_P(EngineFinishTest, GivenUpItGoesOnAsBefore) {
  BeginTooMany(4);
  Submit(5, 20, 5);
  h().TakeAllFinished();
  h().Iterate(20);
  h().GrantAll();
  h().Settle();
  for (RequestId id = 1; id <= 5; ++id) ExpectAnswer(id);
}

// Nothing can run: then nobody is waited for.
TEST_P(EngineFinishTest, WithoutWeightsThePausedStayPaused) {
  h().GrantAll();
  Submit(1, 100, 80);
  RunUntilTokens(1, 10);
  h().TakeAll(/*pause=*/true);
  h().Settle();
  h().TakeAllFinished();
  h().Settle();
  EXPECT_EQ(last().paused, 1);
  h().GrantAll();
  h().Settle();
  ExpectAnswer(1);
}

}  // namespace
}  // namespace switchyard::worker
