#pragma once

// The inner part of attention: a tile of queries against one segment of one kv head's positions.
//
// A segment is kSegment positions at an absolute multiple, walked in blocks of kBlock, also
// absolute: within a segment an online softmax goes from block to block, and segments are merged in
// order. So what a row's result is made of depends on the row's position and window alone.

#include <cstdint>

#include "kernels/ops.h"

namespace switchyard::kernels {

inline constexpr int64_t kAttentionBlock = 256;
inline constexpr int64_t kAttentionSegment = 2048;
inline constexpr int kAttentionQueries = 24;  // most queries of a tile

// Floats of an accumulator row: head_dim rounded up to whole vectors of any target.
inline int64_t AttentionStride(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

// Softmax so far of each query: exp(score - largest) summed, and summed times the values.
struct AttentionState {
  float* largest = nullptr;  // [kAttentionQueries]
  float* sum = nullptr;      // [kAttentionQueries]
  float* values = nullptr;   // [kAttentionQueries][AttentionStride]

  static int64_t Floats(int64_t head_dim) {
    return kAttentionQueries * (AttentionStride(head_dim) + 2);
  }
  static AttentionState At(float* floats, int64_t head_dim) {
    return {floats + kAttentionQueries * AttentionStride(head_dim),
            floats + kAttentionQueries * (AttentionStride(head_dim) + 1), floats};
  }
};

// Query i sees the positions low[i] <= p < high[i] of the slot.
struct AttentionTile {
  int queries = 0;
  const float* q[kAttentionQueries];
  int64_t low[kAttentionQueries];
  int64_t high[kAttentionQueries];
  int64_t slot = 0;
  int64_t kv_head = 0;
  int64_t head_dim = 0;
  float scale = 0;
};

// state = that of the segment [begin, begin + kAttentionSegment). `scores`: kAttentionQueries *
// kAttentionBlock floats.
void AttendSegment(const AttentionTile& tile, const KvView& kv, int64_t begin, AttentionState state,
                   float* scores);

void ClearState(int queries, int64_t head_dim, AttentionState state);

// total = total and segment together.
void MergeState(int queries, int64_t head_dim, AttentionState segment, AttentionState total);

// out = values / sum of query i, with one more logit in the sum where `sink` is not null.
void FinishQuery(AttentionState total, int i, int64_t head_dim, const float* sink, float* out);

}  // namespace switchyard::kernels
