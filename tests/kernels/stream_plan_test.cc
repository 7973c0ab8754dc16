// How streamed products are laid out, without a GPU.

#include "kernels/cuda/stream_plan.h"

#include <gtest/gtest.h>

#include <vector>

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

// As the kernel's teams go over them: how often each tile is multiplied by each expert.
void ExpectEachOnce(const StreamPlan& p) {
  std::vector<int> times(int64_t{p.tiles} * p.passes);
  for (int32_t block = 0; block < p.blocks; ++block) {
    for (int32_t team = 0; team < p.teams; ++team) {
      const int32_t first_tile = block + (p.split ? 0 : team * p.blocks);
      const int32_t stride = p.split ? p.blocks : p.blocks * p.teams;
      for (int32_t tile = first_tile; tile < p.tiles; tile += stride) {
        const int32_t step = p.split ? p.teams : 1;
        for (int32_t pass = p.split ? team : 0; pass < p.passes; pass += step) {
          ++times[int64_t{tile} * p.passes + pass];
        }
      }
    }
  }
  for (const int count : times) ASSERT_EQ(count, 1);
}

TEST(StreamPlanTest, EveryTileIsMultipliedByEveryExpertOnce) {
  const char some = 0;
  for (const int capability : {80, 90, 120}) {
    for (const int64_t n : {1, 48, 2048, 2880, 4096, 8448}) {
      const Matrix w = {&some, DType::kInt4, n, 1408, 128, &some, nullptr, 128};
      for (const int64_t passes : {1, 2, 3, 8, 9, 32}) {
        const StreamPlan p = PlanStream(w, 1, false, 1, capability, 132, passes);
        ExpectEachOnce(p);
        if (!SumsEntries(w, passes, capability, 132)) continue;
        EXPECT_LE(p.shared_bytes, StreamShared(capability));
        EXPECT_GE(p.stages, 2);
      }
    }
  }
}

TEST(StreamPlanTest, ExpertsAreSummedUpWhereNoBlockHasMoreToDoForIt) {
  const char some = 0;
  const Matrix qwen = {&some, DType::kBF16, 2048, 768, 128};
  const Matrix glm = {&some, DType::kInt4, 4096, 1408, 128, &some, nullptr, 128};
  const Matrix gpt_oss = {&some, DType::kMxfp4, 2880, 2880, 128, &some, nullptr, 32};
  EXPECT_TRUE(SumsEntries(qwen, 8, 90, 132));
  EXPECT_TRUE(PlanStream(qwen, 1, false, 1, 90, 132, 8).split);  // 128 tiles for 264 teams
  EXPECT_TRUE(SumsEntries(glm, 9, 90, 132));
  EXPECT_FALSE(PlanStream(glm, 1, false, 1, 90, 132, 9).split);
  EXPECT_FALSE(SumsEntries(gpt_oss, 4, 90, 132));  // 180 tiles for 132 blocks
  EXPECT_FALSE(SumsEntries(qwen, kMostPasses + 1, 90, 132));
}

}  // namespace
}  // namespace switchyard::kernels::cuda
