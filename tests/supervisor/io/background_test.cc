#include "supervisor/background.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

namespace switchyard::supervisor {
namespace {

TEST(Background, DoesEverythingInOrderBeforeItGoes) {
  std::vector<int> done;
  {
    Background background;
    for (int i = 0; i < 1000; ++i) background.Post([&done, i] { done.push_back(i); });
  }
  ASSERT_EQ(done.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(done[i], i);
}

TEST(Background, RunsElsewhereAndHoldsNothingAfterwards) {
  Background background;
  auto held = std::make_shared<std::thread::id>();
  background.Post([held] { *held = std::this_thread::get_id(); });
  background.Stop();
  EXPECT_NE(*held, std::this_thread::get_id());
  EXPECT_NE(*held, std::thread::id());
  EXPECT_EQ(held.use_count(), 1);
  background.Post([held] { ADD_FAILURE(); });
  EXPECT_EQ(held.use_count(), 1);
}

TEST(Background, MayHaveNothingToDo) { Background background; }

}  // namespace
}  // namespace switchyard::supervisor
