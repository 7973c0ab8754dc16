#pragma once

// Query rows of one warp, sixteen or thirty-two, over a tile of keys and values in shared memory:
// scores by mma.m16n8k16, softmax on the run (Dao et al. 2022), probabilities times values by mma
// again. Rows of a tile are swizzled in 16-byte pieces. Two groups of rows read each piece of keys
// and values once: shared memory, not the tensor cores, is the limit of one.

#include <type_traits>

#include "kernels/cuda/kv_pages.cuh"

namespace switchyard::kernels::cuda {

constexpr float kLog2E = 1.4426950408889634f;

template <int kDim>
__device__ inline uint4* TilePiece(uint4* tile, int row, int piece) {
  return tile + row * (kDim / 8) + (piece ^ (row % 8));
}

__device__ inline float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Of a lane's rows (g and g + 8 of each group of sixteen): largest score, sum, and the result
// before division by it.
template <int kDim, int kGroups>
struct RowState {
  float largest[kGroups][2];
  float sum[kGroups][2];  // this lane's columns only
  float out[kGroups][kDim / 8][4];

  __device__ RowState() {
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        largest[i][h] = -INFINITY;
        sum[i][h] = 0;
      }
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
#pragma unroll
        for (int c = 0; c < 4; ++c) out[i][d][c] = 0;
      }
    }
  }

  // Adds the sums of the four lanes of a row; the largest scores in units of log2.
  __device__ void Finish(float scale) {
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        sum[i][h] += __shfl_xor_sync(kAllLanes, sum[i][h], 1);
        sum[i][h] += __shfl_xor_sync(kAllLanes, sum[i][h], 2);
        largest[i][h] *= scale;
      }
    }
  }
};

// Keys that a query row sees: low < position <= high.
struct Sight {
  int32_t low, high;
};

// Scores to probabilities; what was summed so far shrinks with the largest score.
template <int kDim, int kGroups, int kKeys>
__device__ inline void SoftmaxTile(RowState<kDim, kGroups>& state, int group, int h,
                                   float (&score)[kKeys / 8][4], float scale) {
  float largest = state.largest[group][h];
#pragma unroll
  for (int j = 0; j < kKeys / 8; ++j) {
    largest = fmaxf(largest, fmaxf(score[j][2 * h], score[j][2 * h + 1]));
  }
  largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
  largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 2));
  const float finite = largest == -INFINITY ? 0 : largest, base = finite * scale;
  // Exactly 1 where the largest stays: a tile that a row sees nothing of changes no bit of it.
  const float shrink = Exp2((state.largest[group][h] - finite) * scale);
  state.largest[group][h] = largest;
  float sum = state.sum[group][h] * shrink;
#pragma unroll
  for (int d = 0; d < kDim / 8; ++d) {
    state.out[group][d][2 * h] *= shrink;
    state.out[group][d][2 * h + 1] *= shrink;
  }
#pragma unroll
  for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      float& s = score[j][2 * h + c];
      s = Exp2(fmaf(s, scale, -base));
      sum += s;
    }
  }
  state.sum[group][h] = sum;
}

// load_query(piece, group, fragment): the queries' mma operand. `position`: of the tile's first
// key. `masked`: some row does not see some key. scale: of the scores, above 0, in log2.
template <int kDim, int kKeys, int kGroups, class LoadQuery>
__device__ inline void AttendTile(RowState<kDim, kGroups>& state, const LoadQuery& load_query,
                                  uint4* keys, uint4* values, int32_t position, bool masked,
                                  const Sight (&sight)[kGroups][2], float scale) {
  const int lane = threadIdx.x % kWarp, t = lane % 4;
  float score[kGroups][kKeys / 8][4] = {};
#pragma unroll
  for (int k = 0; k < kDim / 8; k += 2) {
    uint32_t a[kGroups][4];
#pragma unroll
    for (int i = 0; i < kGroups; ++i) load_query(k, i, a[i]);
#pragma unroll
    for (int j = 0; j < kKeys / 16; ++j) {
      uint32_t b[4];
      LoadTiles(b, TilePiece<kDim>(keys, j * 16 + lane % 8 + lane / 16 * 8, k + lane / 8 % 2));
#pragma unroll
      for (int i = 0; i < kGroups; ++i) {
        MultiplyTile(score[i][2 * j], a[i][0], a[i][1], a[i][2], a[i][3], b[0], b[1]);
        MultiplyTile(score[i][2 * j + 1], a[i][0], a[i][1], a[i][2], a[i][3], b[2], b[3]);
      }
    }
  }
  if (masked) {
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) {
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const int32_t key = position + j * 8 + 2 * t + c % 2;
          const Sight& seen = sight[i][c / 2];
          if (key <= seen.low || key > seen.high) score[i][j][c] = -INFINITY;
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kGroups; ++i) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      SoftmaxTile<kDim, kGroups, kKeys>(state, i, h, score[i], scale);
    }
  }

#pragma unroll
  for (int j = 0; j < kKeys / 16; ++j) {
    uint32_t a[kGroups][4];
#pragma unroll
    for (int i = 0; i < kGroups; ++i) {
      a[i][0] = Pack(score[i][2 * j][0], score[i][2 * j][1]);
      a[i][1] = Pack(score[i][2 * j][2], score[i][2 * j][3]);
      a[i][2] = Pack(score[i][2 * j + 1][0], score[i][2 * j + 1][1]);
      a[i][3] = Pack(score[i][2 * j + 1][2], score[i][2 * j + 1][3]);
    }
#pragma unroll
    for (int d = 0; d < kDim / 16; ++d) {
      uint32_t b[4];
      LoadTilesTransposed(b, TilePiece<kDim>(values, j * 16 + lane % 16, 2 * d + lane / 16));
#pragma unroll
      for (int i = 0; i < kGroups; ++i) {
        MultiplyTile(state.out[i][2 * d], a[i][0], a[i][1], a[i][2], a[i][3], b[0], b[1]);
        MultiplyTile(state.out[i][2 * d + 1], a[i][0], a[i][1], a[i][2], a[i][3], b[2], b[3]);
      }
    }
  }
}

// Tiles of kKeys keys and as many values on their way from the pool to shared memory, copied by
// kThreads threads (a warp, or a block). bf16 goes straight into swizzled tiles; fp8 lands as it is
// and is widened by Widen.
template <int kDim, int kKeys, int kThreads, bool kFp8>
struct KvTile {
  static constexpr int kPieces = kDim / (kFp8 ? 16 : 8);  // 16-byte pieces of a row as it arrives
  static constexpr int kHalf = kKeys * kPieces;           // values follow the keys
  static constexpr int kWideHalf = kKeys * kDim / 8;
  using Element = typename std::conditional<kFp8, uint8_t, Bf16>::type;

  __device__ static uint4* At(uint4* half, int row, int piece) {
    return kFp8 ? half + row * kPieces + piece : TilePiece<kDim>(half, row, piece);
  }

  // Asks for positions [position, position + kKeys), position a multiple of 16; zeros outside [low,
  // high). A thread copies one piece of kRows rows in a row, which lie in one block of the pool if
  // blocks divide so: then it looks that block up once.
  __device__ static void Copy(const KvView& kv, int64_t slot, int32_t head, int32_t position,
                              int32_t low, int32_t high, int thread, uint4* tile) {
    constexpr int kRows = kHalf / kThreads;
    static_assert(kRows > 0 && kHalf % kThreads == 0 && 16 % kRows == 0, "rows of a thread");
    const int piece = thread % kPieces, row = thread / kPieces * kRows;
    const int32_t first = position + row;
    const bool one_block = kv.block_tokens % kRows == 0;
    constexpr int kStep = 16 / sizeof(Element);
    const Element* key = static_cast<const Element*>(kv.base);
    const Element* value = key;
    if (one_block && first < high && first + kRows > low) {
      key = KvRowOf<Element>(kv, kv.key_offset, slot, first, head, kDim) + piece * kStep;
      value = key + (kv.value_offset - kv.key_offset) / static_cast<int64_t>(sizeof(Element));
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int32_t p = first + i;
      const bool valid = p >= low && p < high;
      const Element* from_key = valid ? key + i * kDim : static_cast<const Element*>(kv.base);
      const Element* from_value = valid ? value + i * kDim : static_cast<const Element*>(kv.base);
      if (!one_block && valid) {
        from_key = KvRowOf<Element>(kv, kv.key_offset, slot, p, head, kDim) + piece * kStep;
        from_value = KvRowOf<Element>(kv, kv.value_offset, slot, p, head, kDim) + piece * kStep;
      }
      CopyAsync(At(tile, row + i, piece), from_key, valid);
      CopyAsync(At(tile + kHalf, row + i, piece), from_value, valid);
    }
  }

  // From a tile as it arrived to a swizzled one of bf16, keys then values. Four pieces are loaded
  // before the first is stored: the compiler cannot know that they are not the same memory.
  __device__ static void Widen(const uint4* tile, int thread, uint4* wide) {
    constexpr int kEach = 2 * kHalf / kThreads, kAtOnce = kEach < 4 ? kEach : 4;
    static_assert(kEach % kAtOnce == 0, "pieces of a thread");
#pragma unroll
    for (int first = 0; first < kEach; first += kAtOnce) {
      uint4 v[kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) v[j] = tile[thread + (first + j) * kThreads];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) StoreWide(v[j], thread + (first + j) * kThreads, wide);
    }
  }

 private:
  __device__ static void StoreWide(uint4 v, int i, uint4* wide) {
    const uint2 a = WidenFp8(v.x), b = WidenFp8(v.y), c = WidenFp8(v.z), d = WidenFp8(v.w);
    uint4* half = wide + i / kHalf * kWideHalf;
    const int row = i % kHalf / kPieces, piece = i % kPieces * 2;
    *TilePiece<kDim>(half, row, piece) = {a.x, a.y, b.x, b.y};
    *TilePiece<kDim>(half, row, piece + 1) = {c.x, c.y, d.x, d.y};
  }
};

// Tiles of keys and values one after the other, by a block of kThreads threads that all attend to
// each: through two stages, one tile ahead, and for fp8 a widened one.
template <int kDim, int kKeys, int kThreads, bool kFp8>
struct KeyTiles {
  using Tile = KvTile<kDim, kKeys, kThreads, kFp8>;
  static constexpr int kPieces = 4 * Tile::kHalf + (kFp8 ? 2 * Tile::kWideHalf : 0);

  const KvView& kv;
  int64_t slot;
  int32_t head, low, end;  // keys outside [low, end) are zeros
  int32_t first, last;     // tiles
  uint4* shared;           // [kPieces]

  // attend(i, keys, values) by every thread. What was copied asynchronously before is there, too.
  template <class Attend>
  __device__ void Each(const Attend& attend) const {
    Copy(first);
    for (int32_t i = first; i <= last; ++i) {
      Copy(i + 1);
      CopyWait<1>();
      __syncthreads();
      uint4* keys = StageOf(i);
      if constexpr (kFp8) {
        uint4* wide = shared + 4 * Tile::kHalf;
        Tile::Widen(keys, threadIdx.x, wide);
        __syncthreads();
        keys = wide;
      }
      attend(i, keys, keys + Tile::kWideHalf);
      __syncthreads();
    }
    CopyWait<0>();
  }

 private:
  __device__ uint4* StageOf(int32_t i) const { return shared + i % 2 * 2 * Tile::kHalf; }
  __device__ void Copy(int32_t i) const {
    if (i <= last) Tile::Copy(kv, slot, head, i * kKeys, low, end, threadIdx.x, StageOf(i));
    CopyCommit();
  }
};

}  // namespace switchyard::kernels::cuda
