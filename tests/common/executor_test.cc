#include "common/executor.h"

#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "common/clock.h"

namespace switchyard {
namespace {

TEST(Executor, OneThreadKeepsTheOrder) {
  Executor executor(1);
  std::vector<int> seen;
  std::promise<void> done;
  for (int i = 0; i < 100; ++i) executor.Post([&seen, i] { seen.push_back(i); });
  executor.Post([&done] { done.set_value(); });
  done.get_future().wait();
  ASSERT_EQ(seen.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(seen[static_cast<size_t>(i)], i);
}

TEST(Executor, LaterTasksWaitForTheirTime) {
  const SteadyClock clock;
  Executor executor(1);
  std::promise<Nanos> late, soon;
  const Nanos start = clock.Now();
  executor.PostAt(start + 20 * kMillisecond, [&] { late.set_value(clock.Now()); });
  executor.Post([&] { soon.set_value(clock.Now()); });
  EXPECT_LT(soon.get_future().get(), start + 20 * kMillisecond);
  EXPECT_GE(late.get_future().get(), start + 20 * kMillisecond);
}

TEST(Executor, StopDropsWhatHasNotBegun) {
  bool ran = false;
  {
    Executor executor(1);
    executor.PostAt(SteadyClock().Now() + 3600 * kSecond, [&] { ran = true; });
    executor.Stop();
    executor.Post([&] { ran = true; });
  }
  EXPECT_FALSE(ran);
}

TEST(Executor, WhatIsRecalledIsGone) {
  Executor executor(1);
  auto owned = std::make_shared<int>();
  const auto ticket =
      executor.PostAt(SteadyClock().Now() + 3600 * kSecond, [owned] { ADD_FAILURE(); });
  EXPECT_EQ(executor.size(), 1u);
  executor.Recall(ticket);
  EXPECT_EQ(executor.size(), 0u);
  EXPECT_EQ(owned.use_count(), 1);
}

TEST(Executor, StopDestroysWhatWaitsAndATaskMayOnlyMove) {
  Executor executor(1);
  std::promise<void> running, go_on;
  auto held = std::make_shared<int>();
  executor.Post([&, moved = std::make_unique<int>(1)] {
    running.set_value();
    go_on.get_future().wait();
  });
  running.get_future().wait();
  executor.Post([held] { ADD_FAILURE(); });
  EXPECT_EQ(executor.size(), 1u);
  std::thread stopping([&] { executor.Stop(); });
  while (true) {  // Stop has begun when a task is dropped
    auto probe = std::make_shared<int>();
    const auto ticket = executor.PostAt(SteadyClock().Now() + 3600 * kSecond, [probe] {});
    if (probe.use_count() == 1) break;
    executor.Recall(ticket);
  }
  go_on.set_value();
  stopping.join();
  EXPECT_EQ(held.use_count(), 1);
}

}  // namespace
}  // namespace switchyard
