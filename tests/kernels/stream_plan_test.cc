// How streamed products are laid out, without a GPU.

#include "kernels/cuda/stream_plan.h"

#include <gtest/gtest.h>

namespace switchyard::kernels::cuda {
namespace {

TEST(StreamPlanTest, EveryBlockIsOneOfAnEntry) {
  for (const int32_t blocks : {1, 3, 84, 132, 188}) {
    for (int32_t entries = 1; entries <= blocks; ++entries) {
      int32_t next = 0;
      for (int32_t block = 0; block < blocks; ++block) {
        const EntryBlocks own = BlocksOfEntry(block, blocks, entries);
        ASSERT_LE(own.first, block);
        ASSERT_LT(block, own.first + own.count);
        ASSERT_LE(blocks / entries, own.count);
        ASSERT_LE(own.count, (blocks + entries - 1) / entries);
        ASSERT_EQ(own.entry, next);
        if (block + 1 == own.first + own.count) ++next;
      }
      ASSERT_EQ(next, entries);
    }
  }
}

TEST(StreamPlanTest, NoMultiprocessorIsLeftOver) {
  const Matrix down = {nullptr, DType::kInt4, 4096, 1408, 128, nullptr, nullptr, 128};
  EXPECT_EQ(PlanStream(down, 1, false, 9, 90, 132).blocks, 132);
  EXPECT_EQ(PlanStream(down, 1, false, 200, 90, 132).blocks, 200);
  const Matrix narrow = {nullptr, DType::kBF16, 64, 512, 128};
  EXPECT_EQ(PlanStream(narrow, 1, false, 3, 90, 132).blocks, 6);
}

}  // namespace
}  // namespace switchyard::kernels::cuda
