#include "supervisor/task_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <thread>
#include <vector>

namespace switchyard::supervisor {
namespace {

class TaskQueueTest : public testing::Test {
 protected:
  void Elsewhere(std::function<void()> work) { std::thread(std::move(work)).join(); }

  std::atomic<int> wakes_ = 0;
  TaskQueue queue_{[this] { ++wakes_; }};
};

TEST_F(TaskQueueTest, NothingRunsBeforeItIsOpened) {
  bool ran = false;
  queue_.Dispatch([&] { ran = true; });
  queue_.RunHome();
  EXPECT_FALSE(ran);
  queue_.Open();
  EXPECT_EQ(wakes_, 1);
  queue_.RunHome();
  EXPECT_TRUE(ran);
}

TEST_F(TaskQueueTest, WhatIsDispatchedRunsOnTheCallersThread) {
  queue_.Open();
  Elsewhere([&] {
    std::thread::id ran;
    queue_.Dispatch([&] { ran = std::this_thread::get_id(); });
    EXPECT_EQ(ran, std::this_thread::get_id());
  });
  EXPECT_EQ(wakes_, 0);
}

TEST_F(TaskQueueTest, WhatIsPostedRunsAtHomeAndInOrderWithTheRest) {
  queue_.Open();
  std::vector<int> order;
  Elsewhere([&] {
    queue_.Dispatch([&] {
      queue_.Dispatch([&] { order.push_back(1); });
      queue_.Post([&] {
        EXPECT_TRUE(queue_.at_home());
        order.push_back(2);
      });
      queue_.Dispatch([&] { order.push_back(3); });
      order.push_back(0);
    });
    EXPECT_EQ(order, (std::vector<int>{0, 1}));
    queue_.Dispatch([&] { order.push_back(4); });  // others wait before it
  });
  EXPECT_EQ(wakes_, 1);
  queue_.RunHome();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4}));
}

TEST_F(TaskQueueTest, HomeTakesOverWhenAnotherThreadHasDoneItsShare) {
  queue_.Open();
  int ran = 0;
  Elsewhere([&] {
    queue_.Dispatch([&] {
      for (int i = 0; i < 1000; ++i) queue_.Dispatch([&] { ++ran; });
    });
  });
  EXPECT_LT(ran, 1000);
  EXPECT_EQ(wakes_, 1);
  queue_.RunHome();
  EXPECT_EQ(ran, 1000);
}

TEST_F(TaskQueueTest, ATaskAtHomeWaitsForOneElsewhere) {
  queue_.Open();
  std::promise<void> inside, go_on;
  bool second = false;
  std::thread other([&] {
    queue_.Dispatch([&] {
      inside.set_value();
      go_on.get_future().wait();
    });
  });
  inside.get_future().wait();
  queue_.RunOrPost([&] { second = true; });
  EXPECT_FALSE(second);
  go_on.set_value();
  other.join();
  EXPECT_EQ(wakes_, 1);
  queue_.RunHome();
  EXPECT_TRUE(second);
}

TEST_F(TaskQueueTest, NothingBeginsOnceItIsClosed) {
  queue_.Open();
  auto held = std::make_shared<int>();
  Elsewhere([&] {
    queue_.Dispatch([&, held] {
      queue_.Dispatch([held] { ADD_FAILURE(); });
      queue_.Close();
    });
    queue_.Dispatch([held] { ADD_FAILURE(); });
  });
  queue_.RunOrPost([held] { ADD_FAILURE(); });
  queue_.RunHome();
  EXPECT_EQ(held.use_count(), 2);  // what came later went at once
  queue_.Wait();
  EXPECT_EQ(held.use_count(), 1);
}

TEST_F(TaskQueueTest, WaitIsUntilTheTaskElsewhereHasEnded) {
  queue_.Open();
  std::promise<void> inside;
  bool ended = false;
  std::thread other([&] {
    queue_.Dispatch([&] {
      queue_.Close();
      inside.set_value();
      ended = true;
    });
  });
  inside.get_future().wait();
  queue_.Wait();
  EXPECT_TRUE(ended);
  other.join();
}

// For the thread sanitizer: state without a lock, from many threads and from home.
TEST_F(TaskQueueTest, TasksOfManyThreadsNeverOverlap) {
  queue_.Open();
  constexpr int kThreads = 4, kTasks = 2000;
  int done = 0;
  std::vector<int> next(kThreads, 0);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kTasks; ++i) {
        auto task = [&, t, i] {
          EXPECT_EQ(next[t]++, i);
          ++done;
        };
        i % 7 == 0 ? queue_.Post(task) : queue_.Dispatch(task);
      }
    });
  }
  bool all = false;
  while (!all) queue_.RunOrPost([&] { all = done == kThreads * kTasks; });
  for (std::thread& thread : threads) thread.join();
  queue_.Close();
  queue_.Wait();
  EXPECT_EQ(done, kThreads * kTasks);
}

}  // namespace
}  // namespace switchyard::supervisor
