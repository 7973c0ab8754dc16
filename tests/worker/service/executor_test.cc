#include "worker/executor.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <future>
#include <memory>
#include <vector>

#include "common/clock.h"
#include "worker/descriptors.h"

namespace switchyard::worker {
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

TEST(Descriptors, OneThatComesTooLateIsClosed) {
  auto sockets = SocketPair();
  ASSERT_TRUE(sockets.ok());
  Descriptors descriptors(std::move(sockets->second));
  EXPECT_TRUE(absl::IsDeadlineExceeded(descriptors.Take(1, kMillisecond).status()));
  auto pipe = Pipe();
  ASSERT_TRUE(pipe.ok());
  ASSERT_TRUE(SendFd(sockets->first.get(), pipe->second.get(), 1).ok());
  pipe->second.Reset();
  char byte;  // the end of file comes when the last writing end is closed
  EXPECT_EQ(::read(pipe->first.get(), &byte, 1), 0);
}

TEST(Descriptors, WaitsAndKeeps) {
  auto sockets = SocketPair();
  ASSERT_TRUE(sockets.ok());
  Descriptors descriptors(std::move(sockets->second));
  auto pipe = Pipe();
  ASSERT_TRUE(pipe.ok());
  ASSERT_TRUE(SendFd(sockets->first.get(), pipe->first.get(), 2).ok());
  ASSERT_TRUE(SendFd(sockets->first.get(), pipe->second.get(), 1).ok());
  auto write_end = descriptors.Take(1, 10 * kSecond);
  ASSERT_TRUE(write_end.ok()) << write_end.status();
  EXPECT_TRUE(descriptors.Take(2, 10 * kSecond).ok());
  EXPECT_TRUE(absl::IsDeadlineExceeded(descriptors.Take(2, kMillisecond).status()));
  sockets->first.Reset();
  EXPECT_TRUE(absl::IsUnavailable(descriptors.Take(3, 10 * kSecond).status()));
}

}  // namespace
}  // namespace switchyard::worker
