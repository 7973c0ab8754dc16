#pragma once

// A chunk of a weight tile, four lanes' pieces of 16 rows, times x on the tensor cores.

#include "kernels/cuda/weight_formats.cuh"

namespace switchyard::kernels::cuda {

// Adds a chunk's products: the lane's piece of two weight rows with its piece of each row of x. Of
// a single row all columns of a result are the same, and the first is kept.
template <class Format, bool kSingle, int kTiles, class LoadX>
__device__ inline void MultiplyChunk(const uint4& low, const uint4& high,
                                     const ScaleWords& low_scale, const ScaleWords& high_scale,
                                     const LoadX& load_x, float (&sum)[kTiles][4]) {
  const auto low_lane = Format::Prepare(low_scale), high_lane = Format::Prepare(high_scale);
  // Of one row, two chains of sums: half the latency.
  constexpr int kChains = kSingle ? 2 : 1;
  float chunk[kTiles][kChains][4] = {};
#pragma unroll
  for (int i = 0; i < Format::kLaneK / 8; ++i) {
    uint32_t a[4], b[4];
    Format::Unpack(low, i, low_lane, a);
    Format::Unpack(high, i, high_lane, b);
#pragma unroll
    for (int c = 0; c < kTiles; ++c) {
      const uint4 x = load_x(c, i);
      MultiplyTile(chunk[c][0], a[0], b[0], a[1], b[1], x.x, x.y);
      MultiplyTile(chunk[c][kChains - 1], a[2], b[2], a[3], b[3], x.z, x.w);
    }
  }
  if constexpr (kSingle) {
    chunk[0][0][0] += chunk[0][1][0];
    chunk[0][0][2] += chunk[0][1][2];
  }
  if constexpr (Format::kChunkScale) {
    const float low_factor = Format::ChunkScale(low_scale);
    const float high_factor = Format::ChunkScale(high_scale);
#pragma unroll
    for (int c = 0; c < kTiles; ++c) {
      sum[c][0] = fmaf(low_factor, chunk[c][0][0], sum[c][0]);
      sum[c][2] = fmaf(high_factor, chunk[c][0][2], sum[c][2]);
      if constexpr (kSingle) continue;
      sum[c][1] = fmaf(low_factor, chunk[c][0][1], sum[c][1]);
      sum[c][3] = fmaf(high_factor, chunk[c][0][3], sum[c][3]);
    }
  } else {
#pragma unroll
    for (int c = 0; c < kTiles; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[c][i] += chunk[c][0][i];
    }
  }
}

}  // namespace switchyard::kernels::cuda
