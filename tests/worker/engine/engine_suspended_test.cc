// Readers that do not read: their sequences are suspended, and make way for others.

#include "tests/worker/engine/engine_fixture.h"

namespace switchyard::worker {
namespace {

class EngineSuspendedTest : public EngineTest {};

INSTANTIATE_TEST_SUITE_P(Launching, EngineSuspendedTest,
                         testing::Values(Launching::kEach, Launching::kAhead, Launching::kGraphs));

TEST_P(EngineSuspendedTest, ASuspendedReaderHoldsUpNobody) {
  limits_.max_sequences = 2;
  Build();
  h().GrantSmallest(1 << 30);
  Submit(Request(1, 20, 300));
  Submit(Request(2, 20, 300));
  h().Iterate(10);
  engine().Suspend(1, true);
  engine().Suspend(2, true);
  h().Settle();
  const size_t before = h().of(1).tokens.size();
  // All slots are taken by sequences whose readers are slow; others run all the same.
  for (RequestId id = 3; id <= 5; ++id) Submit(Request(id, 200, 50));
  h().Settle();
  for (RequestId id = 3; id <= 5; ++id) ExpectAnswer(id);
  EXPECT_EQ(h().of(1).tokens.size(), before);
  EXPECT_EQ(h().of(1).end, SequenceEnd::kNone);
  engine().Suspend(1, false);
  engine().Suspend(2, false);
  h().Settle();
  ExpectAnswer(1);
  ExpectAnswer(2);
  ExpectNothingHeld();
}

// As many of them as there are slots, and one more: one at a time is not enough.
TEST_P(EngineSuspendedTest, SuspendedReadersLeaveOthersAllSlots) {
  Build();
  h().GrantAll();
  for (RequestId id = 1; id <= 5; ++id) Submit(Request(id, 20, 200));
  h().Iterate(10);
  engine().Suspend(1, true);
  h().Iterate(10);
  ASSERT_FALSE(h().of(5).tokens.empty());  // in place of the first
  for (RequestId id = 2; id <= 5; ++id) engine().Suspend(id, true);
  h().Settle();
  for (RequestId id = 6; id <= 9; ++id) Submit(Request(id, 8, 100));
  h().Iterate(20);
  for (RequestId id = 6; id <= 9; ++id) {
    EXPECT_FALSE(h().of(id).tokens.empty()) << id;
    EXPECT_EQ(h().of(id).end, SequenceEnd::kNone) << id;
  }
  EXPECT_EQ(engine().Stats().running, 4);
  EXPECT_EQ(engine().Stats().paused, 5);
  EXPECT_EQ(engine().Stats().waiting, 0);

  // Who reads again queues as others do, and who is gone meanwhile leaves nothing.
  engine().Suspend(5, false);
  h().Iterate(5);
  EXPECT_EQ(h().of(5).resumed, 0);
  engine().Cancel(4);
  h().Settle();
  for (RequestId id = 5; id <= 9; ++id) ExpectAnswer(id);
  EXPECT_EQ(h().of(4).end, SequenceEnd::kCancelled);
  ExpectBeginning(4);
  for (RequestId id = 1; id <= 3; ++id) engine().Suspend(id, false);
  h().Settle();
  for (RequestId id = 1; id <= 3; ++id) ExpectAnswer(id);
  for (RequestId id = 6; id <= 9; ++id) EXPECT_EQ(h().of(id).paused, 0);
  ExpectNothingHeld();
}

TEST_P(EngineSuspendedTest, AReaderThatIsALittleSlowKeepsItsSlotWhileNobodyWaits) {
  Build();
  h().GrantAll();
  for (RequestId id = 1; id <= 4; ++id) Submit(Request(id, 20, 200));
  h().Iterate(10);
  for (int i = 0; i < 10; ++i) {
    engine().Suspend(1, true);
    h().Iterate(5);
    engine().Suspend(1, false);
    h().Iterate(5);
  }
  h().Settle();
  for (RequestId id = 1; id <= 4; ++id) {
    ExpectAnswer(id);
    EXPECT_EQ(h().of(id).paused, 0);
  }
}

TEST_P(EngineSuspendedTest, ASuspendedReaderThatGaveUpItsSlotHasItsDeadline) {
  limits_.max_sequences = 2;
  Build();
  h().GrantAll();
  Submit(Request(1, 20, 300));
  SequenceRequest stalled = Request(2, 20, 300);
  stalled.deadline = h().clock().Now() + kSecond;
  Submit(stalled);
  h().Iterate(10);
  engine().Suspend(2, true);
  Submit(Request(3, 20, 300));
  h().Iterate(10);
  EXPECT_EQ(h().of(2).paused, 1);
  EXPECT_EQ(h().of(2).end, SequenceEnd::kNone);
  h().clock().Advance(kSecond);
  h().Iterate(1);
  EXPECT_EQ(h().of(2).end, SequenceEnd::kDeadline);
  h().Settle();
  ExpectAnswer(1);
  ExpectAnswer(3);
  ExpectNothingHeld();
}

}  // namespace
}  // namespace switchyard::worker
