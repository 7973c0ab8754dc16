// What a step hears while it waits for weights that are on their way.

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <thread>

#include "tests/worker/engine/lease_fixture.h"

namespace switchyard::worker {
namespace {

// Who asks for these while a step waits for weights that are held up. `ask` returns when it has
// been done; only then do the weights come.
class StepThatWaitsTest : public LeaseTest {
 protected:
  void While(const std::function<void()>& ask) {
    h().on_event = [this](const SequenceEvent& event) {
      if (event.end != SequenceEnd::kNone) ended_ = event.id;
    };
    h().on_report = [this](const LeaseReport& report) {
      told_kv_ = report.kv_bytes;
      told_weights_ = report.weight_bytes;
    };
    h().faults().HoldUploadsAfter(3);
    Submit(1, 20, 5);
    h().GrantAll();
    std::thread asks([&] {
      while (engine().Stats().step_started == 0) std::this_thread::yield();
      AwaitUploads();
      ask();
      h().faults().LetUploadsPass();
    });
    while (h().of(1).end == SequenceEnd::kNone || h().of(2).end == SequenceEnd::kNone) {
      h().Iterate(1);
    }
    asks.join();
  }
  // Those that the hold lets through.
  void AwaitUploads() {
    while (h().faults().uploads_left() > 0) std::this_thread::yield();
  }
  void AwaitEnd(RequestId id) {
    while (ended_ != id) std::this_thread::yield();
  }

  std::atomic<RequestId> ended_ = 0;
  std::atomic<uint64_t> told_kv_ = 0, told_weights_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Launching, StepThatWaitsTest,
                         testing::Values(Launching::kEach, Launching::kAhead, Launching::kGraphs));

TEST_P(StepThatWaitsTest, ACancelIsHeardAndTheRestGoesOn) {
  Submit(2, 20, 5);
  While([&] {
    engine().Cancel(2);
    AwaitEnd(2);
  });
  EXPECT_EQ(h().of(2).end, SequenceEnd::kCancelled);
  ExpectAnswer(1);
}

TEST_P(StepThatWaitsTest, ADeadlinePassesWithTheNextLayer) {
  SequenceRequest late;
  late.id = 2;
  late.prompt = {1, 2, 3};
  late.max_tokens = 5;
  late.deadline = h().clock().Now() + kSecond;
  engine().Submit(late);
  While([&] {
    h().clock().Advance(kSecond);
    h().faults().HoldUploadsAfter(1);
    AwaitEnd(2);
  });
  EXPECT_EQ(h().of(2).end, SequenceEnd::kDeadline);
  ExpectAnswer(1);
}

TEST_P(StepThatWaitsTest, KvThatStrangersTakeGoesAtOnce) {
  Submit(2, 20, 5);
  const uint64_t smallest = h().kv().smallest_bytes;
  While([&] {
    engine().SetLease({.epoch = 2, .weight_bytes = image(), .kv_bytes = smallest});
    while (told_kv_ != smallest) std::this_thread::yield();
  });
  ExpectAnswer(1);
  ExpectAnswer(2);
}

TEST_P(StepThatWaitsTest, ProgressIsTold) {
  Submit(2, 20, 5);
  While([&] {
    // Before, no more than four can have been told of: three that came, and one that is held.
    for (uint64_t came = 3; came < 6;) {
      const uint64_t more = came == 3 ? 2 : 1;
      came += more;
      h().faults().HoldUploadsAfter(static_cast<int64_t>(more));
      AwaitUploads();
      while (told_weights_ < came * model_.image.chunk_bytes) std::this_thread::yield();
    }
    EXPECT_NE(engine().Stats().step_started, 0) << "the first step has not ended";
    EXPECT_EQ(engine().Stats().steps, 0u);
  });
  ExpectAnswer(1);
  ExpectAnswer(2);
}

}  // namespace
}  // namespace switchyard::worker
