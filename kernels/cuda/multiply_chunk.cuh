#pragma once

// A chunk of a weight tile, four lanes' pieces of 16 rows, times x on the tensor cores.

#include "kernels/cuda/weight_formats.cuh"

namespace switchyard::kernels::cuda {

// The first product of a sum: what is there does not matter.
__device__ inline void MultiplyFirstTile(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                         uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%10,%10,%10,%10};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(0.0f));
}

// Adds a chunk's products: the lane's piece of two weight rows with its piece of each row of x. Of
// a single row all columns of a result are the same, and the first is kept.
template <class Format, bool kSingle, int kTiles, class LoadX>
__device__ inline void MultiplyChunk(const uint4& low, const uint4& high,
                                     const ScaleWords& low_scale, const ScaleWords& high_scale,
                                     const LoadX& load_x, float (&sum)[kTiles][4]) {
  const auto low_lane = Format::Prepare(low_scale), high_lane = Format::Prepare(high_scale);
  // A product waits for the one before on the same sum: others come in between, four at a time, so
  // that their pieces of x find room.
  constexpr int kTogether = kTiles < 4 ? kTiles : 4;
  constexpr int kChains = kTiles == 1 ? 2 : 1;
  float chunk[kTiles][kChains][4];
#pragma unroll
  for (int i = 0; i < Format::kLaneK / 8; ++i) {
    uint32_t a[4], b[4];
    Format::Unpack(low, i, low_lane, a);
    Format::Unpack(high, i, high_lane, b);
#pragma unroll
    for (int first = 0; first < kTiles; first += kTogether) {
      uint4 x[kTogether];
#pragma unroll
      for (int c = 0; c < kTogether; ++c) x[c] = load_x(first + c, i);
#pragma unroll
      for (int c = 0; c < kTogether; ++c) {
        float(&d)[4] = chunk[first + c][0];
        if (i == 0) {
          MultiplyFirstTile(d, a[0], b[0], a[1], b[1], x[c].x, x[c].y);
        } else {
          MultiplyTile(d, a[0], b[0], a[1], b[1], x[c].x, x[c].y);
        }
      }
#pragma unroll
      for (int c = 0; c < kTogether; ++c) {
        float(&d)[4] = chunk[first + c][kChains - 1];
        if (i == 0 && kChains > 1) {
          MultiplyFirstTile(d, a[2], b[2], a[3], b[3], x[c].z, x[c].w);
        } else {
          MultiplyTile(d, a[2], b[2], a[3], b[3], x[c].z, x[c].w);
        }
      }
    }
  }
  constexpr int kStep = kSingle ? 2 : 1;  // of four numbers, those of the first column
  const float low_factor = Format::kChunkScale ? Format::ChunkScale(low_scale) : 1.0f;
  const float high_factor = Format::kChunkScale ? Format::ChunkScale(high_scale) : 1.0f;
#pragma unroll
  for (int c = 0; c < kTiles; ++c) {
#pragma unroll
    for (int i = 0; i < 4; i += kStep) {
      float total = chunk[c][0][i];
      if constexpr (kChains > 1) total += chunk[c][1][i];
      sum[c][i] = fmaf(i < 2 ? low_factor : high_factor, total, sum[c][i]);
    }
  }
}

}  // namespace switchyard::kernels::cuda
