// The engine under leases that come, go, fail and overtake each other.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "tests/worker/device/resident_memory.h"
#include "tests/worker/engine/lease_fixture.h"

namespace switchyard::worker {
namespace {

INSTANTIATE_TEST_SUITE_P(Launching, LeaseTest,
                         testing::Values(Launching::kEach, Launching::kAhead, Launching::kGraphs));

TEST_P(LeaseTest, NothingRunsWithoutALease) {
  Submit(1, 20, 5);
  h().Iterate(5);
  EXPECT_TRUE(h().of(1).tokens.empty());
  EXPECT_TRUE(h().reports().empty());
  EXPECT_EQ(engine().Stats().waiting, 1);
  h().Grant(image() - 1, h().kv().useful_bytes);
  h().Settle();
  EXPECT_TRUE(h().of(1).tokens.empty());
  EXPECT_LT(last().weight_bytes, image());
  h().Grant(image(), h().kv().smallest_bytes - 1);
  h().Settle();
  EXPECT_TRUE(h().of(1).tokens.empty());
  EXPECT_EQ(last().weight_bytes, image());
  h().GrantSmallest();
  h().Settle();
  ExpectAnswer(1);
  EXPECT_EQ(last().kv_bytes, h().kv().smallest_bytes);
}

TEST_P(LeaseTest, PrefillStartsWhileWeightsArrive) {
  h().faults().HoldUploadsAfter(3);
  std::atomic<bool> started = false;
  ops_.on_step = [&](const kernels::StepRows&) {
    // The first layers are here, the last are held up until this very step has begun.
    if (!started.exchange(true)) h().faults().LetUploadsPass();
    return kernels::OpError{};
  };
  Submit(1, 20, 5);
  h().GrantAll();
  h().Settle();
  EXPECT_TRUE(started);
  ExpectAnswer(1);
}

TEST_P(LeaseTest, ALeaseThatGoesDoesNotWaitForWeightsToArrive) {
  h().faults().HoldUploadsAfter(3);
  Submit(1, 20, 5);
  h().GrantAll();
  // The step waits for weights that are held up; the new lease ends that, and the copy with it.
  std::thread supervisor([&] {
    while (engine().Stats().step_started == 0) std::this_thread::yield();
    engine().SetLease({.epoch = 2, .pause = true});
    while (engine().Stats().step_started != 0) std::this_thread::yield();
    h().faults().LetUploadsPass();  // the step was given up before any weight arrived
  });
  while (h().reports().empty() || last().epoch < 2 || !last().settled) h().Iterate(1);
  supervisor.join();
  EXPECT_EQ(h().faults().committed(), 0u);
  EXPECT_EQ(h().of(1).paused, 1);
  engine().SetLease({3, image(), h().kv().useful_bytes});
  while (h().of(1).end == SequenceEnd::kNone) h().Iterate(1);
  ExpectAnswer(1);
}

TEST_P(LeaseTest, BusyIsTheTimeOfStepsAlone) {
  h().faults().HoldUploadsAfter(3);
  Submit(1, 20, 5);
  h().GrantAll();
  h().clock().Advance(kSecond);
  EXPECT_EQ(engine().Stats().busy, 0);
  std::thread time([&] {
    while (engine().Stats().step_started == 0) std::this_thread::yield();
    h().clock().Advance(3 * kMillisecond);
    EXPECT_EQ(engine().Stats().busy, 3 * kMillisecond) << "of the step that runs";
    h().faults().LetUploadsPass();
  });
  while (h().of(1).end == SequenceEnd::kNone) h().Iterate(1);
  time.join();
  h().clock().Advance(kSecond);
  EXPECT_EQ(engine().Stats().busy, 3 * kMillisecond);
  ExpectAnswer(1);
}

TEST_P(LeaseTest, StopDoesNotWaitForWeightsToArrive) {
  h().faults().HoldUploadsAfter(3);
  Submit(1, 20, 5);
  h().GrantAll();
  std::thread runs([&] { engine().Run(); });
  while (engine().Stats().step_started == 0) std::this_thread::yield();
  engine().Stop();
  runs.join();
  EXPECT_TRUE(h().of(1).tokens.empty());
  h().faults().LetUploadsPass();
}

TEST_P(LeaseTest, ReportsTellOfTheGrowth) {
  // Held, so that there is a growth under way to tell of, however fast the copying is.
  h().faults().HoldUploadsAfter(3);
  h().GrantAll();
  while (h().reports().empty()) h().Iterate(1);
  EXPECT_FALSE(last().settled);
  h().faults().LetUploadsPass();
  h().Settle();
  ASSERT_GE(h().reports().size(), 2u);
  uint64_t before = 0;
  for (const LeaseReport& report : h().reports()) {
    EXPECT_EQ(report.epoch, 1u);
    EXPECT_GE(report.weight_bytes, before);
    before = report.weight_bytes;
  }
  EXPECT_TRUE(last().settled);
  EXPECT_EQ(last().weight_bytes, image());
  EXPECT_EQ(last().kv_bytes, h().kv().useful_bytes);
  EXPECT_EQ(std::count_if(h().reports().begin(), h().reports().end(),
                          [](const LeaseReport& report) { return report.settled; }),
            1);
}

TEST_P(LeaseTest, DrainLetsTheRunningFinish) {
  h().GrantAll();
  Submit(1, 20, 50);
  RunUntilTokens(1, 5);
  h().TakeAll(/*pause=*/false);
  Submit(2, 20, 5);
  h().Iterate(3);
  EXPECT_FALSE(last().settled);
  EXPECT_EQ(last().weight_bytes, image());
  h().Settle();
  ExpectAnswer(1);
  EXPECT_EQ(h().of(1).paused, 0);
  EXPECT_EQ(last().weight_bytes, 0u);
  EXPECT_EQ(last().kv_bytes, 0u);
  EXPECT_EQ(last().waiting, 1);
  EXPECT_EQ(h().faults().committed(), 0u);
  EXPECT_TRUE(h().of(2).tokens.empty());
  h().GrantAll();
  h().Settle();
  ExpectAnswer(2);
}

TEST_P(LeaseTest, PauseTakesEffectAtOnceAndChangesNoBit) {
  h().GrantAll();
  for (RequestId id = 1; id <= 3; ++id) Submit(id, 40 * static_cast<int32_t>(id), 80);
  RunUntilTokens(1, 10);
  h().TakeAll(/*pause=*/true);
  h().Iterate(1);
  EXPECT_TRUE(last().settled);
  EXPECT_EQ(last().paused, 3);
  EXPECT_EQ(last().running, 0);
  EXPECT_GT(last().host_kv_bytes, 0u);
  EXPECT_EQ(h().faults().committed(), 0u);
  h().Settle();
  h().GrantAll();
  h().Settle();
  for (RequestId id = 1; id <= 3; ++id) {
    ExpectAnswer(id);
    EXPECT_EQ(h().of(id).paused, 1);
    EXPECT_EQ(h().of(id).resumed, 1);
  }
  EXPECT_EQ(last().host_kv_bytes, 0u);
}

// The next one's memory is made ready while the copy of the one before is under way.
TEST_P(LeaseTest, AllWhoArePausedAreWaitedForAtOnce) {
  h().GrantAll();
  for (RequestId id = 1; id <= 3; ++id) Submit(id, 100, 80);
  RunUntilTokens(3, 10);
  std::vector<int> synchronized;
  h().faults().on_register = [&] { synchronized.push_back(h().faults().synchronized); };
  const int before = h().faults().synchronized;
  h().TakeAll(/*pause=*/true);
  h().Settle();
  EXPECT_EQ(synchronized, std::vector<int>(3, before));
  EXPECT_EQ(last().paused, 3);
  EXPECT_GT(last().host_kv_bytes, 0u);
  h().GrantAll();
  h().Settle();
  for (RequestId id = 1; id <= 3; ++id) ExpectAnswer(id);
}

TEST_P(LeaseTest, KvThatWasNotCopiedIsComputedAgain) {
  h().GrantAll();
  for (RequestId id = 1; id <= 3; ++id) Submit(id, 100, 80);
  RunUntilTokens(3, 10);
  const uint64_t registered = h().faults().registered();
  h().faults().synchronizes_to_fail = 1;
  h().TakeAll(/*pause=*/true);
  h().Settle();
  EXPECT_EQ(h().faults().synchronizes_to_fail, 0);
  EXPECT_EQ(last().paused, 3);
  EXPECT_EQ(last().host_kv_bytes, 0u);
  EXPECT_EQ(h().faults().registered(), registered);
  h().GrantAll();
  h().Settle();
  for (RequestId id = 1; id <= 3; ++id) ExpectAnswer(id);
}

// The next step comes behind the copies in the stream; the engine itself waits for nothing.
TEST_P(LeaseTest, ResumingWaitsForNoCopyAndKeepsWhatItReads) {
  h().GrantAll();
  for (RequestId id = 1; id <= 3; ++id) Submit(id, 100, 80);
  RunUntilTokens(3, 10);
  h().TakeAll(/*pause=*/true);
  h().Settle();
  const uint64_t paused = last().host_kv_bytes;
  ASSERT_GT(paused, 0u);
  const uint64_t registered = h().faults().registered();
  const int synchronized = h().faults().synchronized;
  bool resumed = false;
  ops_.on_step = [&](const kernels::StepRows&) {
    if (!std::exchange(resumed, true)) {
      EXPECT_EQ(h().faults().synchronized, synchronized);
      EXPECT_EQ(h().faults().registered(), registered) << "the device may be reading it";
      EXPECT_EQ(last().host_kv_bytes, paused);
    }
    return kernels::OpError{};
  };
  h().GrantAll();
  h().Settle();
  EXPECT_TRUE(resumed);
  EXPECT_LE(h().faults().registered(), registered - paused);
  EXPECT_EQ(last().host_kv_bytes, 0u);
  for (RequestId id = 1; id <= 3; ++id) ExpectAnswer(id);
}

TEST_P(LeaseTest, HostMemoryComesBackThoughTheResumedStepFails) {
  h().GrantAll();
  Submit(1, 100, 80);
  RunUntilTokens(1, 10);
  h().TakeAll(/*pause=*/true);
  h().Settle();
  ASSERT_GT(last().host_kv_bytes, 0u);
  ops_.on_step = [](const kernels::StepRows&) { return kernels::OpError{"no such kernel"}; };
  h().GrantAll();
  h().Settle();
  EXPECT_EQ(h().of(1).end, SequenceEnd::kError);
  EXPECT_EQ(last().host_kv_bytes, 0u);
}

TEST_P(LeaseTest, PauseWithoutHostMemoryComputesAgain) {
  h().GrantAll();
  Submit(1, 100, 80);
  RunUntilTokens(1, 10);
  h().TakeAll(true, 0);
  h().Settle();
  EXPECT_EQ(last().host_kv_bytes, 0u);
  EXPECT_EQ(last().paused, 1);
  h().GrantAll();
  h().Settle();
  ExpectAnswer(1);
}

TEST_P(LeaseTest, PausedInTheMiddleOfAPrompt) {
  h().GrantAll();
  Submit(1, 300, 10);
  h().Iterate(4);
  EXPECT_TRUE(h().of(1).tokens.empty());
  h().TakeAll(true);
  h().Settle();
  EXPECT_EQ(h().of(1).paused, 1);
  h().GrantAll();
  h().Settle();
  ExpectAnswer(1);
}

TEST_P(LeaseTest, TakingTheLastChunksIsEnoughToStop) {
  h().GrantAll();
  Submit(1, 20, 80);
  RunUntilTokens(1, 10);
  h().Grant(image() - 1, h().kv().useful_bytes, true, kHost);
  h().Settle();
  EXPECT_EQ(last().weight_bytes, image() - model_.image.chunk_bytes);
  EXPECT_EQ(last().paused, 1);
  h().GrantAll();
  h().Settle();
  ExpectAnswer(1);
}

TEST_P(LeaseTest, KvShrinksBelowRunningSequences) {
  h().GrantAll();
  h().Settle();  // nothing but the KV is under way below
  for (RequestId id = 1; id <= 4; ++id) Submit(id, 100, 300);
  RunUntilTokens(4, 100);
  const uint64_t smallest = h().kv().smallest_bytes;
  h().Grant(image(), smallest, /*pause=*/true, kHost);
  h().Iterate(1);
  EXPECT_TRUE(last().settled);
  EXPECT_EQ(last().kv_bytes, smallest);
  EXPECT_GT(last().paused, 0);
  EXPECT_GT(last().running, 0);
  EXPECT_LE(h().faults().committed(), smallest + image());
  h().Settle();
  for (RequestId id = 1; id <= 4; ++id) ExpectAnswer(id);
}

// What was granted and not used is others' by then.
TEST_P(LeaseTest, OnceSettledPausedSequencesTakeNoMoreHostMemoryThanTheyHold) {
  h().GrantAll();
  h().Settle();
  for (RequestId id = 1; id <= 4; ++id) Submit(id, 100, 300);
  RunUntilTokens(4, 20);
  h().Grant(image(), h().kv().smallest_bytes, /*pause=*/true, kHost);
  h().Iterate(1);
  ASSERT_TRUE(last().settled);
  uint64_t held = last().host_kv_bytes;
  const size_t settled = h().reports().size();
  h().Settle();
  for (size_t i = settled; i < h().reports().size(); ++i) {
    EXPECT_LE(h().reports()[i].host_kv_bytes, held) << i;
    held = std::min(held, h().reports()[i].host_kv_bytes);
  }
  for (RequestId id = 1; id <= 4; ++id) ExpectAnswer(id);
}

TEST_P(LeaseTest, KvShrinksAsBlocksFallFree) {
  h().GrantAll();
  for (RequestId id = 1; id <= 4; ++id) Submit(id, 100, 100 * static_cast<int32_t>(id));
  RunUntilTokens(4, 50);
  h().Grant(image(), h().kv().smallest_bytes, /*pause=*/false, kHost);
  h().Settle();
  EXPECT_EQ(last().kv_bytes, h().kv().smallest_bytes);
  for (RequestId id = 1; id <= 4; ++id) ExpectAnswer(id);
}

TEST_P(LeaseTest, ShrinkingMovesLiveBlocksAndChangesNoBit) {
  h().GrantAll();
  // The first and third end early and leave holes in low granules; the others live in high ones.
  Submit(1, 200, 2);
  Submit(2, 200, 300);
  Submit(3, 200, 2);
  Submit(4, 200, 300);
  RunUntilTokens(4, 20);
  const uint64_t before = h().faults().committed();
  h().Grant(image(), h().kv().smallest_bytes * 2, true, kHost);
  h().Iterate(1);
  EXPECT_LE(h().faults().committed(), before);
  h().Settle();
  for (RequestId id = 1; id <= 4; ++id) ExpectAnswer(id);
}

TEST_P(LeaseTest, AGrowthThatFailsSaysWhatIsHeld) {
  h().faults().FailCommitsAfter(3);
  Submit(1, 20, 50);
  h().GrantAll();
  h().Settle();
  EXPECT_NE(last().error.find("no room"), std::string::npos) << last().error;
  EXPECT_LT(last().weight_bytes + last().kv_bytes, image() + h().kv().useful_bytes);
  EXPECT_TRUE(h().of(1).tokens.empty() || h().of(1).end == SequenceEnd::kNone);
  EXPECT_EQ(h().of(1).end, SequenceEnd::kNone);
  h().faults().Mend();
  h().GrantAll();
  h().Settle();
  EXPECT_EQ(last().error, "");
  ExpectAnswer(1);
}

// Wherever the device runs out, the engine says so, holds what it says, and goes on when it can.
TEST_P(LeaseTest, GrowthFailsAtEveryPoint) {
  for (int64_t after = 0; after < 24; ++after) {
    h().faults().FailCommitsAfter(after);
    const RequestId id = 100 + after;
    Submit(id, 120, 60);
    h().GrantAll();
    h().Settle();
    EXPECT_LE(h().faults().committed(), last().weight_bytes + last().kv_bytes) << after;
    h().faults().Mend();
    h().GrantAll();
    h().Settle();
    ExpectAnswer(id);
    h().TakeAll(after % 2 == 0);
    h().Settle();
    EXPECT_EQ(h().faults().committed(), 0u);
  }
}

// A copy that fails is no lack of memory: the pool stays as it is, and whose KV it was ends as in a
// step that fails.
TEST_P(LeaseTest, ASequenceWhoseKvDoesNotComeBackEnds) {
  h().GrantAll();
  h().Settle();
  for (RequestId id = 1; id <= 4; ++id) Submit(id, 100, 300);
  RunUntilTokens(4, 100);
  h().Grant(image(), h().kv().smallest_bytes, /*pause=*/true, kHost);
  h().Iterate(1);
  const int paused = last().paused;
  ASSERT_GT(paused, 0);
  h().faults().FailUploadsAfter(0);
  h().GrantAll();
  h().Settle();
  h().faults().LetUploadsPass();
  int ended = 0;
  for (RequestId id = 1; id <= 4; ++id) {
    if (h().of(id).end == SequenceEnd::kLength) {
      ExpectAnswer(id);
      continue;
    }
    ++ended;
    EXPECT_EQ(h().of(id).end, SequenceEnd::kError);
    EXPECT_EQ(h().of(id).error, "no copy, says the test");
  }
  EXPECT_EQ(ended, paused);
  EXPECT_EQ(last().error, "");
  EXPECT_EQ(last().kv_bytes, h().kv().useful_bytes);
  EXPECT_EQ(last().host_kv_bytes, 0u);
  Submit(5, 100, 20);
  h().Settle();
  ExpectAnswer(5);
}

TEST_P(LeaseTest, NoMasterNoWeights) {
  engine().SetSource(nullptr);
  Submit(1, 20, 5);
  h().GrantAll();
  h().Settle();
  EXPECT_NE(last().error.find("master"), std::string::npos);
  EXPECT_EQ(last().weight_bytes, 0u);
  engine().SetSource(std::make_shared<MasterSource>(std::span(model_.master)));
  h().GrantAll();
  h().Settle();
  ExpectAnswer(1);
  // Weights that are on the device need no master.
  engine().SetSource(nullptr);
  Submit(2, 20, 5);
  h().Settle();
  ExpectAnswer(2);
}

TEST_P(LeaseTest, EpochsOvertakeEachOther) {
  std::mt19937 random(static_cast<uint32_t>(GetParam()));
  for (int round = 0; round < 200; ++round) {
    if (round % 10 == 0) Submit(1000 + round, 50, 30);
    if (random() % 8 == 0) h().TakeAllFinished();
    h().Grant(random() % (2 * image()), random() % (2 * h().kv().smallest_bytes), random() % 2,
              random() % 2 ? kHost : 0);
    h().Iterate(random() % 3);
  }
  h().GrantAll();
  h().Settle();
  EXPECT_EQ(last().epoch, h().last_epoch());
  for (const auto& [id, request] : requests_) ExpectAnswer(id);
  uint64_t epoch = 0;
  for (const LeaseReport& report : h().reports()) {
    EXPECT_GE(report.epoch, epoch);
    epoch = report.epoch;
  }
}

TEST_P(LeaseTest, AnOldEpochIsIgnored) {
  h().GrantAll();
  h().Settle();
  engine().SetLease({.epoch = 0, .weight_bytes = 0, .kv_bytes = 0});
  h().Iterate(3);
  EXPECT_EQ(last().epoch, 1u);
  EXPECT_EQ(last().weight_bytes, image());
}

TEST_P(LeaseTest, ADrainDoesNotWaitForAReaderThatIsSlow) {
  h().GrantAll();
  Submit(1, 20, 300);
  Submit(2, 20, 50);
  RunUntilTokens(2, 5);
  engine().Suspend(1, true);
  h().TakeAll(/*pause=*/false);
  h().Settle();
  ExpectAnswer(2);
  EXPECT_EQ(h().of(1).paused, 1);
  EXPECT_EQ(last().weight_bytes, 0u);
  engine().Suspend(1, false);
  h().GrantAll();
  h().Settle();
  ExpectAnswer(1);
}

TEST_P(LeaseTest, AHundredCyclesLeaveNothing) {
  [[maybe_unused]] uint64_t after_first = 0;  // sanitizers keep memory
  for (int i = 0; i < 100; ++i) {
    const RequestId id = 1 + i;
    h().GrantAll();
    Submit(id, 120, 40);
    RunUntilTokens(id, 10);
    h().TakeAll(true);
    h().Settle();
    EXPECT_EQ(h().faults().committed(), 0u);
    h().GrantAll();
    h().Settle();
    ExpectAnswer(id);
    h().TakeAll(false);
    h().Settle();
    EXPECT_EQ(h().faults().committed(), 0u);
    if (i == 20) after_first = ProcessResidentBytes();
  }
#ifndef SWITCHYARD_SANITIZED
  EXPECT_LE(ProcessResidentBytes(), after_first + (2 << 20));
#endif
}

}  // namespace
}  // namespace switchyard::worker
