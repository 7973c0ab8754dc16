#include "worker/engine/command_queue.h"

#include <gtest/gtest.h>

#include <chrono>
#include <future>
#include <limits>

namespace switchyard::worker {
namespace {

TEST(CommandQueue, WaitReturnsForACommandAWakeAStopOrTheTime) {
  CommandQueue queue;
  queue.Wait(0);
  queue.Push(CancelCommand{1});
  queue.Wait(-1);
  EXPECT_EQ(queue.TakeAll().size(), 1u);
  queue.Wake();
  queue.Wait(-1);
  queue.Stop();
  queue.Wait(-1);
  EXPECT_TRUE(queue.empty());
}

// The deadline of a client who would wait for ever: the engine must sleep, and not spin.
TEST(CommandQueue, WaitsBeyondAllTime) {
  CommandQueue queue;
  auto waited =
      std::async(std::launch::async, [&] { queue.Wait(std::numeric_limits<Nanos>::max()); });
  EXPECT_EQ(waited.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  queue.Wake();
  waited.wait();
}

}  // namespace
}  // namespace switchyard::worker
