#include "worker/heartbeat.h"

#include <gtest/gtest.h>

#include <atomic>

#include "tests/worker/service/support.h"

namespace switchyard::worker {
namespace {

TEST(Heartbeat, TellsTheRunningStep) {
  EngineStats stats;
  stats.steps = 3;
  stats.tokens = 5;
  stats.step_started = 100;
  stats.step_predicted = 40;
  stats.waiting = 2;
  stats.busy = 70;
  const v1::Heartbeat beat = MakeHeartbeat(stats, 130, 4096);
  EXPECT_EQ(beat.steps(), 3u);
  EXPECT_EQ(beat.tokens(), 5u);
  EXPECT_EQ(beat.step_running_ns(), 30u);
  EXPECT_EQ(beat.step_predicted_ns(), 40u);
  EXPECT_EQ(beat.waiting(), 2u);
  EXPECT_EQ(beat.busy_ns(), 70u);
  EXPECT_EQ(beat.rss_bytes(), 4096u);
}

TEST(Heartbeat, NoStepNoPrediction) {
  EngineStats stats;
  stats.step_predicted = 40;
  const v1::Heartbeat beat = MakeHeartbeat(stats, 130, 0);
  EXPECT_EQ(beat.step_running_ns(), 0u);
  EXPECT_EQ(beat.step_predicted_ns(), 0u);
}

TEST(Heartbeat, BeatsAgainAndAgain) {
  TestOutbox outbox;
  const SteadyClock clock;
  Heartbeats heartbeats(
      clock, outbox, [] { return EngineStats{}; }, kMillisecond);
  for (int i = 0; i < 3; ++i) {
    const v1::FromWorker message =
        outbox.WaitFor([](const v1::FromWorker& m) { return m.has_heartbeat(); });
    EXPECT_GT(message.heartbeat().rss_bytes(), 0u);
  }
}

// The step that freed them may have been told before this beat: it must not have the last word.
TEST(Heartbeat, BlocksThatAreFreedWhileItIsSentAreToldAtOnce) {
  TestOutbox outbox;
  const SteadyClock clock;
  std::atomic<int> looks = 0;
  const auto stats = [&] {
    EngineStats stats;
    stats.kv_blocks_used = looks++ == 0 ? 5 : 0;
    return stats;
  };
  Heartbeats heartbeats(clock, outbox, stats, 3600 * kSecond);
  for (const uint64_t used : {5, 0}) {
    outbox.WaitFor([&](const v1::FromWorker& m) {
      return m.has_heartbeat() && m.heartbeat().kv_blocks_used() == used;
    });
  }
}

}  // namespace
}  // namespace switchyard::worker
