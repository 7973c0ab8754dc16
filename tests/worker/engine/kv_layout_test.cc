#include "worker/engine/kv_layout.h"

#include <gtest/gtest.h>

#include <random>

namespace switchyard::worker {
namespace {

Architecture ArchOf(std::vector<int32_t> windows, int32_t kv_heads, int32_t head_dim) {
  Architecture arch;
  arch.kv_heads = kv_heads;
  arch.head_dim = head_dim;
  for (const int32_t window : windows) arch.layers.push_back({window, 0, false});
  return arch;
}

std::vector<int32_t> Layers(int count, int every, int32_t window) {
  std::vector<int32_t> windows;
  for (int i = 0; i < count; ++i) windows.push_back((i + 1) % every == 0 ? 0 : window);
  return windows;
}

TEST(KvLayout, LlamaOf8BOnAGpu) {
  const Architecture arch = ArchOf(std::vector<int32_t>(32, 0), 8, 128);
  const KvLayout kv = PlanKv(arch, kernels::DType::kBF16, 131072, 8, 8192, 2 << 20);
  ASSERT_EQ(kv.groups.size(), 1u);
  EXPECT_EQ(kv.groups[0].block_bytes, 2u << 20);
  EXPECT_EQ(kv.groups[0].granule_bytes, 64u << 20);
  EXPECT_EQ(kv.bytes_per_token, 131072u);
  EXPECT_EQ(kv.smallest_bytes, uint64_t{131072} * (131072 + 8192));
  EXPECT_EQ(kv.useful_bytes, uint64_t{131072} * 131072 * 8);
}

TEST(KvLayout, Fp8TakesHalfOfBf16) {
  const Architecture arch = ArchOf(Layers(32, 2, 1024), 8, 128);
  const KvLayout wide = PlanKv(arch, kernels::DType::kBF16, 32768, 8, 8192, 2 << 20);
  const KvLayout narrow = PlanKv(arch, kernels::DType::kF8E4M3, 32768, 8, 8192, 2 << 20);
  EXPECT_EQ(narrow.layer_bytes, uint64_t{2} * 8 * 16 * 128);
  EXPECT_EQ(narrow.layer_bytes, wide.layer_bytes / 2);
  EXPECT_EQ(narrow.bytes_per_token, wide.bytes_per_token / 2);
  EXPECT_EQ(narrow.window_bytes, wide.window_bytes / 2);
  EXPECT_EQ(narrow.useful_bytes, wide.useful_bytes / 2);
  EXPECT_EQ(narrow.groups[0].granule_bytes, wide.groups[0].granule_bytes) << "a page";
  EXPECT_EQ(narrow.groups[0].blocks_per_granule, 2 * wide.groups[0].blocks_per_granule);
}

// Each is a call of the driver, when a model comes and when it goes.
TEST(KvLayout, TheSmallestPoolOnAGpuIsAFewDozenGranules) {
  const Architecture arch = ArchOf(std::vector<int32_t>(32, 0), 8, 128);
  const auto granules = [&](int32_t context, uint64_t page) {
    const KvLayout kv = PlanKv(arch, kernels::DType::kBF16, context, 4, 512, page);
    return kv.smallest_bytes / kv.groups[0].granule_bytes;
  };
  EXPECT_EQ(granules(512, 2 << 20), 32u);      // of 4 MiB
  EXPECT_EQ(granules(4096, 2 << 20), 36u);     // of 16
  EXPECT_EQ(granules(131072, 2 << 20), 257u);  // of 64, the largest
  EXPECT_EQ(granules(4096, 4096), 288u);       // a page of the host's costs little
}

TEST(KvLayout, WindowsMakeAGroupOfTheirOwn) {
  // The shape of Gemma-3-27B: 5 windowed layers to 1 full one.
  const Architecture arch = ArchOf(Layers(62, 6, 1024), 16, 128);
  const KvLayout kv = PlanKv(arch, kernels::DType::kBF16, 131072, 4, 2048, 2 << 20);
  ASSERT_EQ(kv.groups.size(), 2u);
  EXPECT_EQ(kv.groups[0].window, 1024);
  EXPECT_EQ(kv.groups[0].layers.size(), 52u);
  EXPECT_EQ(kv.groups[1].window, 0);
  EXPECT_EQ(kv.groups[1].layers.size(), 10u);
  EXPECT_EQ(kv.group_of_layer[5], 1);
  // One uniform table would take six times this.
  const uint64_t uniform = uint64_t{62} * 2 * 16 * 128 * 2 * 131072;
  EXPECT_LT(kv.smallest_bytes, uniform / 5);
}

TEST(KvLayout, AWindowThatNeverSlidesIsFullAttention) {
  const Architecture arch = ArchOf({512, 0, 512}, 2, 16);
  const KvLayout kv = PlanKv(arch, kernels::DType::kF32, 512, 2, 256, 4096);
  EXPECT_EQ(kv.groups.size(), 1u);
  EXPECT_EQ(kv.groups[0].window, 0);
}

TEST(KvLayout, BlocksForRows) {
  KvGroup full;
  EXPECT_EQ(BlocksForRows(full, 100, 101).begin, 0);
  EXPECT_EQ(BlocksForRows(full, 100, 101).end, 7);
  KvGroup windowed;
  windowed.window = 32;
  EXPECT_EQ(BlocksForRows(windowed, 10, 11).begin, 0);
  EXPECT_EQ(BlocksForRows(windowed, 100, 101).begin, 4);  // sees 69..100
  EXPECT_EQ(BlocksForRows(windowed, 100, 132).end, 9);
}

TEST(KvLayout, RandomShapesKeepTheRules) {
  std::mt19937 random(3);
  for (int i = 0; i < 500; ++i) {
    const int32_t layers = 1 + random() % 40;
    const int32_t window = 1 + random() % 300;
    const Architecture arch =
        ArchOf(Layers(layers, 1 + random() % 6, window), 1 + random() % 8, 8 * (1 + random() % 16));
    const int32_t context = 1 + random() % 3000;
    const int32_t sequences = 1 + random() % 6;
    const int32_t chunk = 1 + random() % 300;
    const uint64_t page = random() % 2 ? 4096 : 2 << 20;
    const KvLayout kv = PlanKv(arch, kernels::DType::kF32, context, sequences, chunk, page);
    uint64_t end = 0;
    for (const KvGroup& group : kv.groups) {
      const uint64_t plain = kv.layer_bytes * group.layers.size();
      ASSERT_GE(group.block_bytes, plain);
      ASSERT_LE(group.block_bytes, plain + plain / 8 + 64);
      ASSERT_EQ(group.granule_bytes % page, 0u);
      ASSERT_EQ(group.granule_bytes, group.block_bytes * group.blocks_per_granule);
      ASSERT_GE(group.granule_bytes, 65536u);
      const bool gathered = kv.groups.size() == 1 && page == 2 << 20 &&
                            group.smallest_blocks >= 32 * group.blocks_per_granule;
      const uint64_t most = std::max<uint64_t>(2 << 20, 18 * std::max(group.block_bytes, page));
      ASSERT_LE(group.granule_bytes, gathered ? std::max<uint64_t>(64 << 20, most) : most);
      ASSERT_GE(group.region_offset, end);
      end = group.region_offset + group.region_bytes;
      // No step of any chunk at any position needs more than a sequence's share.
      for (int k = 0; k < 50; ++k) {
        const int32_t first = random() % context;
        const int32_t border = std::min(context, (first / chunk + 1) * chunk);
        ASSERT_LE(BlocksForRows(group, first, border).count(), group.sequence_blocks);
      }
    }
    ASSERT_LE(end, kv.reserved_bytes);
    ASSERT_LE(kv.smallest_bytes, kv.useful_bytes);
  }
}

}  // namespace
}  // namespace switchyard::worker
