// How many rows decode steps are padded to, and when a size's graph is captured.

#include "worker/engine/graph_schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace switchyard::worker {
namespace {

using ::testing::ElementsAre;

Architecture Layers(int count, bool moe = false) {
  Architecture arch;
  arch.layers.resize(count);
  arch.layers.back().moe = moe;
  return arch;
}

TEST(DecodeSizesTest, PowersOfTwoAndTheMost) {
  const Architecture dense = Layers(3);
  EXPECT_THAT(DecodeSizes(dense, 1), ElementsAre(1));
  EXPECT_THAT(DecodeSizes(dense, 2), ElementsAre(1, 2));
  EXPECT_THAT(DecodeSizes(dense, 8), ElementsAre(1, 2, 4, 8));
  EXPECT_THAT(DecodeSizes(dense, 11), ElementsAre(1, 2, 4, 8, 11));
}

TEST(DecodeSizesTest, WithExpertsFewRowsOfPadding) {
  const Architecture experts = Layers(3, true);
  EXPECT_THAT(DecodeSizes(experts, 1), ElementsAre(1));
  EXPECT_THAT(DecodeSizes(experts, 8), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
  EXPECT_THAT(DecodeSizes(experts, 37),
              ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 37));
}

TEST(DecodeSizesTest, EveryNumberOfRowsTakesTheSmallestThatHoldsIt) {
  for (const bool moe : {false, true}) {
    const std::vector<int32_t> sizes = DecodeSizes(Layers(1, moe), 100);
    const GraphSchedule schedule(sizes);
    for (int32_t rows = 1; rows <= 100; ++rows) {
      const int32_t size = schedule.SizeFor(rows);
      EXPECT_GE(size, rows);
      EXPECT_LT(size, moe ? rows * 5 / 4 + 1 : 2 * rows) << rows;
      for (const int32_t other : sizes) EXPECT_TRUE(other < rows || other >= size) << rows;
    }
  }
}

TEST(DecodeSizesTest, BytesGrowWithSizesAndLayers) {
  EXPECT_GT(GraphBytes(Layers(4), 1), 0u);
  EXPECT_EQ(GraphBytes(Layers(4), 1) % (2 << 20), 0u);
  EXPECT_GT(GraphBytes(Layers(80), 256), 2 * GraphBytes(Layers(80), 8));
  EXPECT_GT(GraphBytes(Layers(400), 8), 4 * GraphBytes(Layers(80), 8));
  EXPECT_GT(GraphBytes(Layers(80, true), 8), GraphBytes(Layers(80), 8));
}

TEST(GraphScheduleTest, WhenIdleTheSmallestThatIsMissing) {
  GraphSchedule schedule({1, 2, 4, 8});
  EXPECT_EQ(schedule.NextWhenIdle(), 1);
  EXPECT_EQ(schedule.NextWhenIdle(), 1) << "asking changes nothing";
  schedule.Captured(1);
  schedule.Captured(4);
  EXPECT_EQ(schedule.NextWhenIdle(), 2);
  schedule.Failed(2);
  EXPECT_EQ(schedule.NextWhenIdle(), 8);
  schedule.Captured(8);
  EXPECT_EQ(schedule.NextWhenIdle(), 0);
}

TEST(GraphScheduleTest, WhenBusyASizeThatHasRunOften) {
  GraphSchedule schedule({1, 2, 4, 8});
  int32_t steps = 0;
  for (; !schedule.DueInFrontOf(4); ++steps) {
    ASSERT_LT(steps, 1000);
    schedule.RanEagerly(4);
  }
  EXPECT_GT(steps, 1) << "no request's first token waits for it";
  EXPECT_FALSE(schedule.DueInFrontOf(2)) << "each size counts its own steps";
  schedule.Captured(4);
  EXPECT_FALSE(schedule.DueInFrontOf(4));
}

TEST(GraphScheduleTest, WhatFailedIsLeftAlone) {
  GraphSchedule schedule({1});
  for (int i = 0; i < 1000; ++i) schedule.RanEagerly(1);
  ASSERT_TRUE(schedule.DueInFrontOf(1));
  schedule.Failed(1);
  EXPECT_FALSE(schedule.DueInFrontOf(1));
  EXPECT_EQ(schedule.NextWhenIdle(), 0);
}

}  // namespace
}  // namespace switchyard::worker
