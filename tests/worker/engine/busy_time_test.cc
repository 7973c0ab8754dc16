#include "worker/engine/busy_time.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "worker/engine/stats_board.h"

namespace switchyard::worker {
namespace {

TEST(BusyTime, SumsWhatRanAndWhatStillRuns) {
  BusyTime busy;
  EXPECT_EQ(busy.At(1000), 0);
  busy.Start(1000);
  EXPECT_EQ(busy.At(1000), 0);
  EXPECT_EQ(busy.At(1300), 300);
  busy.Stop(1400);
  EXPECT_EQ(busy.At(1400), 400);
  EXPECT_EQ(busy.At(9000), 400);
  busy.Start(9000);
  EXPECT_EQ(busy.At(9001), 401);
}

TEST(BusyTime, StartedTwiceRunsOnce) {
  BusyTime busy;
  busy.Start(100);
  busy.Start(150);
  EXPECT_EQ(busy.At(200), 100);
  busy.Stop(200);
  busy.Stop(300);
  EXPECT_EQ(busy.At(300), 100);
}

TEST(BusyTime, AClockMayBeginAtZero) {
  BusyTime busy;
  busy.Start(0);
  EXPECT_EQ(busy.At(5), 5);
  busy.Stop(7);
  EXPECT_EQ(busy.At(8), 7);
}

// Half of a change would be a jump by a whole step, there or back.
TEST(BusyTime, NoReaderSeesHalfOfAChange) {
  BusyTime busy;
  std::atomic<Nanos> clock = 1;
  std::atomic<bool> stop = false;
  std::thread steps([&] {
    for (int i = 0; i < 100000; ++i) {
      busy.Start(clock);
      clock += 1000;
      busy.Stop(clock);
    }
    stop = true;
  });
  Nanos before = 0;
  bool jumped = false;
  while (!stop) {
    const Nanos now = busy.At(clock);
    jumped |= now < before || now > clock;
    before = now;
  }
  steps.join();
  EXPECT_FALSE(jumped);
  EXPECT_EQ(busy.At(clock), 100000 * 1000);
}

TEST(StatsBoard, IsBusyWhileAnyStepIsOnItsWay) {
  StatsBoard board;
  board.StepStarted(100, 5);
  board.StepStarted(110, 5);  // launched behind it
  board.StepFinished(120);    // the first
  board.StepStarted(120, 5);  // the second has the device
  EXPECT_EQ(board.Read(125).busy, 25);
  board.StepFinished(130);
  EXPECT_EQ(board.Read(200).busy, 30);
  EXPECT_EQ(board.Read(200).steps, 2u);
  board.StepStarted(300, 5);
  board.StepFailed(310);
  EXPECT_EQ(board.Read(400).busy, 40) << "a step that failed kept the device busy, too";
  EXPECT_EQ(board.Read(400).steps, 2u);
}

}  // namespace
}  // namespace switchyard::worker
