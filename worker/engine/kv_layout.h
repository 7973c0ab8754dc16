#pragma once

// Shape of the paged KV cache: computed once from the architecture and the limits. Pure.

#include <cstdint>
#include <vector>

#include "kernels/ops.h"
#include "worker/model/architecture.h"

namespace switchyard::worker {

constexpr int32_t kBlockTokens = 16;

// Layers that share a block table: all full-attention layers (windows that never slide within the
// context are full attention), or all layers of one window.
//
// A block holds, for each layer of the group in order, its keys [Hkv][kBlockTokens][D], then its
// values.
struct KvGroup {
  int32_t window = 0;  // 0: full attention
  std::vector<int32_t> layers;
  uint64_t block_bytes = 0;    // of kBlockTokens tokens of all its layers, keys and values, padded
  uint64_t granule_bytes = 0;  // physical unit of this group's region: whole blocks, whole pages
  int32_t blocks_per_granule = 0;
  int32_t granules = 0;         // of its region
  uint64_t region_offset = 0;   // of its region in the reserved range
  uint64_t region_bytes = 0;    // max_sequences of context_length
  int32_t table_stride = 0;     // blocks of context_length, rounded up
  int32_t sequence_blocks = 0;  // most blocks that one sequence holds at once
  int32_t smallest_blocks = 0;  // its share of the smallest pool
};

struct KvLayout {
  kernels::DType dtype = kernels::DType::kF32;
  std::vector<KvGroup> groups;  // at most two in the families that there are; any number works
  std::vector<int32_t> group_of_layer;
  uint64_t layer_bytes = 0;  // of a block: keys and values of one layer
  uint64_t reserved_bytes = 0;
  uint64_t bytes_per_token = 0;  // of groups without a window
  uint64_t window_bytes = 0;     // of one sequence's windowed groups at their fullest
  uint64_t smallest_bytes =
      0;                      // one sequence of context_length plus one prefill chunk, in granules
  uint64_t useful_bytes = 0;  // max_sequences of context_length, in granules
};

KvLayout PlanKv(const Architecture& arch, kernels::DType dtype, int32_t context_length,
                int32_t max_sequences, int32_t prefill_chunk, uint64_t page_bytes);

// Blocks [begin, end) of a sequence, as indices into its row of the block table.
struct BlockSpan {
  int32_t begin = 0;
  int32_t end = 0;
  int32_t count() const { return end - begin; }
};

// The blocks that a sequence must hold for a step on its rows [first, end): what those rows see,
// and what they write.
BlockSpan BlocksForRows(const KvGroup& group, int32_t first, int32_t end);

}  // namespace switchyard::worker
