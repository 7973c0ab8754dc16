#include "supervisor/background.h"

#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <thread>
#include <vector>

namespace switchyard::supervisor {
namespace {

TEST(Background, DoesEverythingInOrder) {
  std::vector<int> done;
  std::promise<void> last;
  Background background;
  for (int i = 0; i < 1000; ++i) {
    EXPECT_TRUE(background.Post([&done, i] { done.push_back(i); }));
  }
  background.Post([&] { last.set_value(); });
  last.get_future().wait();
  ASSERT_EQ(done.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(done[i], i);
}

TEST(Background, RunsElsewhereAndHoldsNothingAfterwards) {
  Background background;
  auto held = std::make_shared<std::thread::id>();
  std::promise<void> ran;
  background.Post([&, held] {
    *held = std::this_thread::get_id();
    ran.set_value();
  });
  ran.get_future().wait();
  background.Stop();
  EXPECT_NE(*held, std::this_thread::get_id());
  EXPECT_EQ(held.use_count(), 1);
  EXPECT_FALSE(background.Post([held] { ADD_FAILURE(); }));
  EXPECT_EQ(held.use_count(), 1);
}

TEST(Background, TakesNoMoreThanItMayAndDropsWhatWaitsAtTheEnd) {
  Background background(2);
  std::promise<void> running, go_on;
  auto held = std::make_shared<int>();
  background.Post([&] {
    running.set_value();
    go_on.get_future().wait();
  });
  running.get_future().wait();
  EXPECT_TRUE(background.Post([held] { ADD_FAILURE(); }));
  EXPECT_TRUE(background.Post([held] { ADD_FAILURE(); }));
  EXPECT_FALSE(background.Post([held] { ADD_FAILURE(); }));
  std::thread stopping([&] { background.Stop(); });
  while (held.use_count() > 1) std::this_thread::yield();  // until Stop has dropped what waits
  go_on.set_value();
  stopping.join();
  EXPECT_EQ(held.use_count(), 1);
}

TEST(Background, MayHaveNothingToDo) { Background background; }

}  // namespace
}  // namespace switchyard::supervisor
