#include "worker/engine/kv_layout.h"

#include <algorithm>
#include <numeric>

#include "common/check.h"
#include "common/checked.h"

namespace switchyard::worker {
namespace {

constexpr uint64_t kSmallestGranule = 64 << 10;
constexpr uint64_t kLargestSmallGranule = 1 << 20;
constexpr uint64_t kRegionAlignment = 2 << 20;  // regions do not share a huge page
// A GPU's pages. To commit one, or to give it back, takes its driver as long (an H200's 45 and 35
// us) as 32 of them at once.
constexpr uint64_t kDearPage = 2 << 20;
constexpr uint64_t kLargestGranule = 64 << 20;
constexpr int32_t kManyGranules = 64;  // of the smallest pool: half as many round up 3% at most

// Up to a multiple of the largest power of two (of at most a page) that costs no more than bytes /
// part.
uint64_t PadWithin(uint64_t bytes, uint64_t page_bytes, uint64_t part) {
  uint64_t unit = page_bytes;
  while (unit > 64 && RoundUp(bytes, unit) - bytes > bytes / part) unit /= 2;
  return RoundUp(bytes, unit);
}

// Pads a block so that not too many of them make whole pages: as little as gives granules of at
// most a megabyte or 16 blocks or pages, and never more than an eighth.
uint64_t PadBlock(uint64_t bytes, uint64_t page_bytes) {
  const uint64_t most = std::max(kLargestSmallGranule, 16 * std::max(bytes, page_bytes));
  for (const uint64_t part : {64, 32, 16}) {
    const uint64_t padded = PadWithin(bytes, page_bytes, part);
    if (std::lcm(padded, page_bytes) <= most) return padded;
  }
  return PadWithin(bytes, page_bytes, 8);
}

void SizeGroup(KvGroup& group, uint64_t layer_bytes, uint64_t page_bytes) {
  group.block_bytes = PadBlock(layer_bytes * group.layers.size(), page_bytes);
  const uint64_t whole_pages = std::lcm(group.block_bytes, page_bytes);
  group.granule_bytes =
      RoundUp(std::max(kSmallestGranule, std::max(group.block_bytes, page_bytes)), whole_pages);
  group.blocks_per_granule = static_cast<int32_t>(group.granule_bytes / group.block_bytes);
}

void CountBlocks(KvGroup& group, int32_t context_length, int32_t prefill_chunk) {
  const auto blocks = [](int64_t tokens) {
    return static_cast<int32_t>(CeilDiv(tokens, kBlockTokens));
  };
  group.table_stride = blocks(context_length);
  group.sequence_blocks = group.table_stride;
  group.smallest_blocks = blocks(int64_t{context_length} + prefill_chunk);
  if (group.window > 0) {
    // A chunk's first row sees window - 1 keys before it; at worst both ends share their blocks.
    const int64_t tokens = int64_t{group.window} - 1 + prefill_chunk;
    const int32_t sliding = static_cast<int32_t>((tokens - 2 + kBlockTokens) / kBlockTokens + 1);
    group.sequence_blocks = std::min(group.table_stride, sliding);
    group.smallest_blocks = group.sequence_blocks;
  }
}

// Once the smallest pool is known: a switch commits and releases it. Of one group alone: what the
// supervisor knows of several is their sum and one granule, so that it would be off by another.
void GatherGranules(KvGroup& group, uint64_t page_bytes) {
  if (page_bytes < kDearPage) return;
  while (2 * group.granule_bytes <= kLargestGranule &&
         group.smallest_blocks / group.blocks_per_granule >= kManyGranules) {
    group.granule_bytes *= 2;
    group.blocks_per_granule *= 2;
  }
}

uint64_t InGranules(const KvGroup& group, int64_t blocks) {
  return CeilDiv(blocks, group.blocks_per_granule) * group.granule_bytes;
}

KvGroup& GroupOf(KvLayout& layout, int32_t window) {
  for (KvGroup& group : layout.groups) {
    if (group.window == window) return group;
  }
  layout.groups.emplace_back().window = window;
  return layout.groups.back();
}

}  // namespace

KvLayout PlanKv(const Architecture& arch, kernels::DType dtype, int32_t context_length,
                int32_t max_sequences, int32_t prefill_chunk, uint64_t page_bytes) {
  KvLayout layout;
  layout.dtype = dtype;
  layout.layer_bytes =
      2 * kernels::DTypeBytes(dtype, int64_t{arch.kv_heads} * kBlockTokens * arch.head_dim);
  for (size_t i = 0; i < arch.layers.size(); ++i) {
    const int32_t window = arch.layers[i].window >= context_length ? 0 : arch.layers[i].window;
    KvGroup& group = GroupOf(layout, window);
    group.layers.push_back(static_cast<int32_t>(i));
    layout.group_of_layer.push_back(static_cast<int32_t>(&group - layout.groups.data()));
  }
  for (KvGroup& group : layout.groups) {
    SizeGroup(group, layout.layer_bytes, page_bytes);
    CountBlocks(group, context_length, prefill_chunk);
    if (layout.groups.size() == 1) GatherGranules(group, page_bytes);
    const int64_t most =
        std::max<int64_t>(group.smallest_blocks, int64_t{group.sequence_blocks} * max_sequences);
    group.region_bytes = InGranules(group, most);
    group.granules = static_cast<int32_t>(group.region_bytes / group.granule_bytes);
    group.region_offset = RoundUp(layout.reserved_bytes, std::max(kRegionAlignment, page_bytes));
    layout.reserved_bytes = group.region_offset + group.region_bytes;
    layout.smallest_bytes += InGranules(group, group.smallest_blocks);
    layout.useful_bytes += group.region_bytes;
    if (group.window == 0) {
      layout.bytes_per_token += CeilDiv(group.block_bytes, kBlockTokens);
    } else {
      layout.window_bytes += group.block_bytes * group.sequence_blocks;
    }
  }
  return layout;
}

BlockSpan BlocksForRows(const KvGroup& group, int32_t first, int32_t end) {
  SY_ASSERT(first >= 0 && first < end);
  BlockSpan span;
  span.end = (end + kBlockTokens - 1) / kBlockTokens;
  if (group.window > 0) span.begin = std::max(0, first - group.window + 1) / kBlockTokens;
  return span;
}

}  // namespace switchyard::worker
