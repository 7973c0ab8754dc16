// Who is admitted, by priority and by age, and what happens when blocks run out.

#include "tests/worker/engine/engine_fixture.h"

namespace switchyard::worker {
namespace {

class EngineRoomTest : public EngineTest {};

INSTANTIATE_TEST_SUITE_P(Launching, EngineRoomTest,
                         testing::Values(Launching::kEach, Launching::kAhead, Launching::kGraphs));

// Eight of priority 5 at a time, of which four wait: always somebody to go before.
TEST_P(EngineRoomTest, AStreamOfHigherPriorityDoesNotStarveALowOne) {
  Build();
  h().GrantAll();
  SequenceRequest low = Request(1, 20, 30);
  low.patient_until = h().clock().Now() + 30 * kSecond;
  RequestId next = 2;
  auto open = [&] {
    int count = 0;
    for (RequestId id = 2; id < next; ++id) count += h().of(id).end == SequenceEnd::kNone;
    return count;
  };
  auto stream = [&] {
    for (; open() < 8; ++next) {
      SequenceRequest high = Request(next, 10, 10);
      high.priority = 5;
      Submit(high);
    }
    h().Iterate(1);
    h().clock().Advance(kSecond / 10);
  };
  stream();
  Submit(low);
  for (int i = 0; i < 290; ++i) stream();
  ASSERT_GT(next, 60u);
  EXPECT_TRUE(h().of(1).tokens.empty()) << "it is patient";
  for (int i = 0; i < 40; ++i) stream();
  EXPECT_FALSE(h().of(1).tokens.empty());
  h().Settle();
  for (RequestId id = 1; id < next; ++id) ExpectAnswer(id);
}

TEST_P(EngineRoomTest, OutOfBlocksTheOldestGoesOn) {
  Build();
  h().GrantSmallest(1 << 30);  // which is not the worker's once this has settled
  for (RequestId id = 1; id <= 6; ++id) Submit(Request(id, 100, 400));
  h().Settle();
  int paused = 0;
  for (RequestId id = 1; id <= 6; ++id) {
    ExpectAnswer(id);
    EXPECT_EQ(h().of(id).paused, h().of(id).resumed);
    paused += h().of(id).paused;
  }
  EXPECT_GT(paused, 0);
  EXPECT_EQ(h().of(1).paused, 0);  // the oldest goes on
  ExpectNothingHeld();
}

// As it always is: nobody is granted host memory but for a swap, and KV is computed again.
TEST_P(EngineRoomTest, OutOfBlocksWithoutHostMemory) {
  Build();
  h().GrantSmallest(0);
  for (RequestId id = 1; id <= 6; ++id) {
    SequenceRequest request = Request(id, 100, 400);
    request.prompt_logprobs = 0;
    Submit(request);
  }
  h().Settle();
  for (RequestId id = 1; id <= 6; ++id) {
    ExpectAnswer(id);
    ASSERT_EQ(h().of(id).prompt.size(), 100u);
    const FakeAnswer answer = FakeAnswerOf(model_, requests_[id]);
    for (size_t i = 1; i < 100; ++i) {
      ASSERT_EQ(h().of(id).prompt[i].logprob, answer.prompt_logprobs[i - 1]);
    }
  }
  for (const LeaseReport& report : h().reports()) EXPECT_EQ(report.host_kv_bytes, 0u);
  ExpectNothingHeld();
}

TEST_P(EngineRoomTest, PriorityGoesFirst) {
  limits_.max_sequences = 1;
  Build();
  std::vector<int32_t> order;
  for (RequestId id = 1; id <= 3; ++id) {
    SequenceRequest request = Request(id, 20, 5);
    request.priority = static_cast<int32_t>(id);
    Submit(request);
  }
  h().GrantAll();
  while (h().of(3).tokens.empty()) h().Iterate(1);
  EXPECT_TRUE(h().of(2).tokens.empty());
  while (h().of(2).tokens.empty()) h().Iterate(1);
  EXPECT_TRUE(h().of(1).tokens.empty());
  h().Settle();
  for (RequestId id = 1; id <= 3; ++id) ExpectAnswer(id);
}

}  // namespace
}  // namespace switchyard::worker
