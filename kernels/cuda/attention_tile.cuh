#pragma once

// Sixteen query rows of one warp over a tile of keys and values in shared memory: scores by
// mma.m16n8k16, softmax on the run (Dao et al. 2022), probabilities times values by mma again.
// Scores are in units of log2. Rows of the tile are swizzled in 16-byte pieces.

#include "kernels/cuda/kv_pages.cuh"

namespace switchyard::kernels::cuda {

constexpr float kLog2E = 1.4426950408889634f;

template <int kDim>
__device__ inline uint4* TilePiece(uint4* tile, int row, int piece) {
  return tile + row * (kDim / 8) + (piece ^ (row % 8));
}

// Of a lane's two rows (g and g + 8): largest score, sum, and the result before division by it.
template <int kDim>
struct RowState {
  float largest[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0, 0};  // this lane's columns only
  float out[kDim / 8][4] = {};

  // Adds the sums of the four lanes of a row.
  __device__ void Finish() {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      sum[h] += __shfl_xor_sync(kAllLanes, sum[h], 1);
      sum[h] += __shfl_xor_sync(kAllLanes, sum[h], 2);
    }
  }
};

// Keys that a query row sees: low < position <= high.
struct Sight {
  int32_t low, high;
};

// `position`: of the tile's first key. q: 16 rows of shared memory from `q_row` on.
template <int kDim, int kKeys>
__device__ inline void AttendTile(RowState<kDim>& state, uint4* q, int q_row, uint4* keys,
                                  uint4* values, int first_key, int32_t position,
                                  const Sight (&sight)[2], float scale) {
  const int lane = threadIdx.x % kWarp, t = lane % 4;
  float score[kKeys / 8][4] = {};
#pragma unroll
  for (int k = 0; k < kDim / 8; k += 2) {
    uint32_t a[4];
    LoadTiles(a, TilePiece<kDim>(q, q_row + lane % 16, k + lane / 16));
#pragma unroll
    for (int j = 0; j < kKeys / 16; ++j) {
      uint32_t b[4];
      LoadTiles(b, TilePiece<kDim>(keys, first_key + j * 16 + lane % 8 + lane / 16 * 8,
                                   k + lane / 8 % 2));
      MultiplyTile(score[2 * j], a[0], a[1], a[2], a[3], b[0], b[1]);
      MultiplyTile(score[2 * j + 1], a[0], a[1], a[2], a[3], b[2], b[3]);
    }
  }

#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float largest = state.largest[h];
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int32_t key = position + j * 8 + 2 * t + c;
        float& s = score[j][2 * h + c];
        s = key > sight[h].low && key <= sight[h].high ? s * scale : -INFINITY;
        largest = fmaxf(largest, s);
      }
    }
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
    const float base = largest == -INFINITY ? 0 : largest;
    const float shrink = exp2f(state.largest[h] - base);
    state.largest[h] = largest;
    state.sum[h] *= shrink;
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      state.out[d][2 * h] *= shrink;
      state.out[d][2 * h + 1] *= shrink;
    }
#pragma unroll
    for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float& s = score[j][2 * h + c];
        s = exp2f(s - base);
        state.sum[h] += s;
      }
    }
  }

#pragma unroll
  for (int j = 0; j < kKeys / 16; ++j) {
    const uint32_t a0 = Pack(score[2 * j][0], score[2 * j][1]);
    const uint32_t a1 = Pack(score[2 * j][2], score[2 * j][3]);
    const uint32_t a2 = Pack(score[2 * j + 1][0], score[2 * j + 1][1]);
    const uint32_t a3 = Pack(score[2 * j + 1][2], score[2 * j + 1][3]);
#pragma unroll
    for (int d = 0; d < kDim / 16; ++d) {
      uint32_t b[4];
      LoadTilesTransposed(
          b, TilePiece<kDim>(values, first_key + j * 16 + lane % 16, 2 * d + lane / 16));
      MultiplyTile(state.out[2 * d], a0, a1, a2, a3, b[0], b[1]);
      MultiplyTile(state.out[2 * d + 1], a0, a1, a2, a3, b[2], b[3]);
    }
  }
}

// Asks for keys and values of positions [position, position + kKeys), position a multiple of kKeys;
// zeros outside [low, high). A thread copies one piece of kRows rows in a row, which lie in one
// block of the pool if blocks divide so: then it looks that block up once.
template <int kDim, int kKeys, int kThreads>
__device__ inline void CopyKv(const KvView& kv, int64_t slot, int32_t head, int32_t position,
                              int32_t low, int32_t high, uint4* keys, uint4* values) {
  constexpr int kPieces = kDim / 8, kRows = kKeys * kPieces / kThreads;
  const int piece = threadIdx.x % kPieces, row = threadIdx.x / kPieces * kRows;
  const int32_t first = position + row;
  const bool one_block = kv.block_tokens % kRows == 0;
  const Bf16* key = static_cast<const Bf16*>(kv.base);
  const Bf16* value = key;
  if (one_block && first < high && first + kRows > low) {
    key = KvRow(kv, kv.key_offset, slot, first, head, kDim) + piece * 8;
    value = key + (kv.value_offset - kv.key_offset) / static_cast<int64_t>(sizeof(Bf16));
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int32_t p = first + i;
    const bool valid = p >= low && p < high;
    const Bf16* from_key = key + i * kDim;
    const Bf16* from_value = value + i * kDim;
    if (!one_block && valid) {
      from_key = KvRow(kv, kv.key_offset, slot, p, head, kDim) + piece * 8;
      from_value = KvRow(kv, kv.value_offset, slot, p, head, kDim) + piece * 8;
    }
    CopyAsync(TilePiece<kDim>(keys, row + i, piece), from_key, valid);
    CopyAsync(TilePiece<kDim>(values, row + i, piece), from_value, valid);
  }
}

}  // namespace switchyard::kernels::cuda
