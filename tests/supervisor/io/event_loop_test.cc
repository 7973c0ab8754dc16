#include "supervisor/event_loop.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <memory>
#include <thread>
#include <vector>

#include "common/unique_fd.h"

namespace switchyard::supervisor {
namespace {

TEST(EventLoop, RunsPostedTasksInOrderFromManyThreads) {
  EventLoop loop;
  constexpr int kThreads = 4, kTasks = 1000;
  std::vector<int> next(kThreads, 0);
  int left = kThreads * kTasks;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kTasks; ++i) {
        loop.Post([&, t, i] {
          EXPECT_EQ(next[t]++, i);
          if (--left == 0) loop.Stop();
        });
      }
    });
  }
  loop.Run();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(left, 0);
}

TEST(EventLoop, ATaskMayPost) {
  EventLoop loop;
  std::vector<int> order;
  loop.Post([&] {
    loop.Post([&] {
      order.push_back(2);
      loop.Stop();
    });
    order.push_back(1);
  });
  loop.Run();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST(EventLoop, TimersFireInOrderAndStoppedOnesDoNot) {
  EventLoop loop;
  std::vector<int> order;
  loop.Start(2 * kMillisecond, [&] {
    order.push_back(2);
    loop.Stop();
  });
  loop.Start(kMillisecond, [&] { order.push_back(1); });
  const Timers::Id stopped = loop.Start(0, [&] { order.push_back(0); });
  static_cast<Timers&>(loop).Stop(stopped);
  loop.Run();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST(EventLoop, ATimerThatIsDueCanStillBeStopped) {
  EventLoop loop;
  Timers::Id second = 0;
  // Both are due when the loop starts; the first to fire stops the other.
  loop.Start(0, [&] { loop.Stop(second); });
  second = loop.Start(0, [&] { ADD_FAILURE(); });
  loop.Start(kMillisecond, [&] { loop.Stop(); });
  loop.Run();
}

TEST(EventLoop, ASignalAfterTheLoopDoesNothing) {
  {
    EventLoop().OnSignals({SIGUSR1}, [](int) {});
  }
  EXPECT_EQ(std::raise(SIGUSR1), 0);
}

TEST(EventLoop, SignalsArriveOnTheLoop) {
  EventLoop loop;
  int got = 0;
  loop.OnSignals({SIGUSR1, SIGUSR2}, [&](int signal) {
    got += signal == SIGUSR1 ? 1 : 10;
    if (got == 11) loop.Stop();
  });
  ::kill(::getpid(), SIGUSR1);
  ::kill(::getpid(), SIGUSR2);
  loop.Run();
  EXPECT_EQ(got, 11);
}

TEST(EventLoop, AWatchCallsWhileThereIsSomethingToRead) {
  EventLoop loop;
  auto pipe = Pipe();
  ASSERT_TRUE(pipe.ok());
  ASSERT_EQ(::write(pipe->second.get(), "abc", 3), 3);
  int calls = 0;
  std::unique_ptr<EventLoop::Watch> watch;
  watch = loop.WatchReadable(pipe->first.get(), [&] {
    char byte;
    ASSERT_EQ(::read(pipe->first.get(), &byte, 1), 1);  // one at a time: it must call again
    if (++calls == 3) {
      watch.reset();  // from its own callback
      loop.Post([&] { loop.Stop(); });
    }
  });
  loop.Run();
  EXPECT_EQ(calls, 3);
}

TEST(EventLoop, ADispatchedTaskMayUseAllOfTheLoop) {
  EventLoop loop;
  const std::thread::id own = std::this_thread::get_id();
  auto pipe = Pipe();
  ASSERT_TRUE(pipe.ok());
  std::vector<int> order;
  std::unique_ptr<EventLoop::Watch> watch;
  auto work = [&] {
    EXPECT_NE(std::this_thread::get_id(), own);
    loop.OnOwnThread([&] { EXPECT_EQ(std::this_thread::get_id(), own); });
    loop.Start(kMillisecond, [&] {
      EXPECT_EQ(std::this_thread::get_id(), own);
      order.push_back(1);
      EXPECT_EQ(::write(pipe->second.get(), "a", 1), 1);
    });
    watch = loop.WatchReadable(pipe->first.get(), [&] {
      order.push_back(2);
      watch.reset();
      loop.Stop();
    });
    order.push_back(0);
  };
  // Not from a task, and so that none runs: it waits until the loop's thread sits in the reactor.
  std::thread other([&] {
    loop.OnOwnThread([] {});
    loop.Dispatch(work);
  });
  loop.Run();
  other.join();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2}));
}

TEST(EventLoop, TasksThatAreLeftAreDestroyed) {
  auto held = std::make_shared<int>(1);
  {
    EventLoop loop;
    loop.Post([held] {});
  }
  EXPECT_EQ(held.use_count(), 1);
}

}  // namespace
}  // namespace switchyard::supervisor
