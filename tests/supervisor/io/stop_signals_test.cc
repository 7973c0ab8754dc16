#include "supervisor/stop_signals.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "common/log.h"
#include "supervisor/event_loop.h"
#include "supervisor/held_signals.h"

namespace switchyard::supervisor {
namespace {

constexpr Nanos kLong = 600 * kSecond;

// Until it is heard, which a second one of its kind would hide.
void Raise(int signal) {
  ::kill(::getpid(), signal);
  sigset_t waits;
  do {
    std::this_thread::yield();
    sigpending(&waits);
  } while (sigismember(&waits, signal));
}

// In a process of its own: the signals are the process's, and it may end.
[[noreturn]] void Live(Nanos grace, Nanos after, const std::function<void(EventLoop&)>& task) {
  InitLog("test");
  HeldSignals held;
  EventLoop loop;
  std::vector<int> heard;
  StopSignals::Options options;
  options.grace = grace;
  options.after = after;
  options.heard = [&](int nth) {
    loop.Post([&, nth] {
      heard.push_back(nth);
      if (nth == 2) loop.Stop();
    });
  };
  options.clean_up = [] { std::fputs("cleaned up", stderr); };
  auto signals = std::make_unique<StopSignals>(held.Take(), options);
  loop.Post([&] { task(loop); });
  loop.Run();
  signals.reset();
  ::kill(::getpid(), SIGTERM);  // nobody's any more
  ::_exit(heard == std::vector<int>{1, 2} ? 0 : 2);
}

void Hang() { std::promise<void>().get_future().wait(); }

TEST(StopSignalsDeathTest, TheFirstTwoAreTheLoops) {
  EXPECT_EXIT(Live(kLong, kLong,
                   [](EventLoop&) {
                     Raise(SIGTERM);
                     Raise(SIGINT);
                   }),
              ::testing::ExitedWithCode(0), "^$");
}

TEST(StopSignalsDeathTest, TheThirdEndsAProcessWhoseTaskHangs) {
  EXPECT_EXIT(Live(kLong, kLong,
                   [](EventLoop&) {
                     for (int i = 0; i < 3; ++i) Raise(SIGTERM);
                     Hang();
                   }),
              ::testing::ExitedWithCode(1), "cleaned up");
}

TEST(StopSignalsDeathTest, AfterTheFirstAProcessWhoseTaskHangsEndsInTime) {
  EXPECT_EXIT(Live(kMillisecond, kMillisecond,
                   [](EventLoop&) {
                     Raise(SIGINT);
                     Hang();
                   }),
              ::testing::ExitedWithCode(1), "in time.*\n.*cleaned up");
}

TEST(StopSignalsDeathTest, TheSecondLeavesNoGrace) {
  EXPECT_EXIT(Live(kLong, kMillisecond,
                   [](EventLoop&) {
                     Raise(SIGTERM);
                     Raise(SIGTERM);
                     Hang();
                   }),
              ::testing::ExitedWithCode(1), "cleaned up");
}

}  // namespace
}  // namespace switchyard::supervisor
