#pragma once

// Product of quantized weights with up to 64 rows of x: decode of a batch.
//
// A block has 128 weight rows (of gate and up: 64 each), all rows of x, and a part of k. A warp
// takes 32 weight rows as the left operand of the tensor core: a lane holds 16 bytes of each of
// four rows, which only it reads, and turns them into bf16 in registers; x is the right operand.
// Up to 16 rows two warps share weight rows and take turns along k. Weights and x arrive by
// cp.async through a ring of up to four stages, scales through rings of their own; what is not x is
// asked for before the kernel in front has ended. Where blocks of whole rows leave multiprocessors
// idle, k is cut, and a second kernel adds the parts up in their order (batch_parts.cuh).
//
// Limits on an H200, of 1 KiB of weights at the full read rate: 200 instructions. int4 needs 88 to
// become bf16, and as many products as there are rows; all in all 165 with 16 rows and 260 with 64.
// fp8 needs 64, or 16 where x is f16, as rows are that were normed for it, and half as many
// products. The tensor core needs 1.6 ms for an 8B model's products of 64 rows. They take 1.9 ms
// with 16 rows and 3.9 ms with 64 in int4, 2.4 and 3.9 ms in fp8: 43, 21, 66 and 41% of the read
// limit (bench/results/h200.md).
//
// What mattered: cp.async whose lanes neither read nor write next to each other takes a wavefront
// a piece and reads sectors twice, so x lies in the order of its columns and is swizzled within
// 128 bytes; scales come 16 bytes at a time, not a word a group; what the compiler would compute
// anew each step is kept (Keep); few enough registers that the next kernel's blocks can begin.
// Tried: one wide block a multiprocessor, its warps as many as balance the work (gate/up 13%
// slower: all wait for each other); the two warps of a weight row with rings of their own (level);
// clusters of the blocks of a tile, which add its parts up in each other's shared memory, without a
// second kernel (8 to 36% slower: a cluster begins where all its blocks find room at once).

#include <algorithm>

#include "kernels/cuda/halves.cuh"
#include "kernels/cuda/multiply_chunk.cuh"
#include "kernels/cuda/quant_batch_scales.cuh"

namespace switchyard::kernels::cuda {

constexpr int kQuantLeastSteps = 2;  // of a part of k

// Waits until all but the last `pending` groups of copies are there.
__device__ inline void CopyWaitBut(int pending) {
  static_assert(kQuantStages == 4);
  if (pending >= 2) return CopyWait<2>();
  if (pending == 1) return CopyWait<1>();
  CopyWait<0>();
}

// What a warp makes of its weight rows: results of tile j, rows g and g + 8, columns 8c + 2t and
// 8c + 2t + 1.
template <class Format, int kM>
class QuantSums {
 public:
  using Stage = QuantStage<Format, kM>;
  using Weights = QuantWeights<Format, kM>;
  using X = QuantX<Format, kM>;
  using Scales = QuantScales<Format, kM>;
  static constexpr int kTiles = Stage::kTiles, kColumns = kM / 8;
  // Whether every chunk's sums are scaled: a group is no shorter.
  static constexpr bool kFolds = Format::kChunkScale && Stage::kChunkK >= 128;
  // A step's weights before the copies of a later one. With scales to be kept as well that takes
  // registers that the blocks of the next kernel need to begin.
  static constexpr bool kLoadsEarly = Format::kChunkScale && !kFolds;

  float sum[kTiles][kColumns][4] = {};

  // What a lane holds of a chunk's weights and their scales.
  struct Chunk {
    uint4 piece[kTiles][2];
    typename Scales::OfChunk of;
  };
  // `at`: where the weights lie.
  __device__ static Chunk Load(const Scales& scales, uint32_t at, int chunk) {
    Chunk loaded = {};
#pragma unroll
    for (int i = 0; i < 2 * kTiles; ++i) {
      loaded.piece[i / 2][i % 2] = Weights::Piece(at, i / 2, i % 2);
    }
    if (!Format::kChunkScale || kFolds) loaded.of = scales.Read(chunk);
    return loaded;
  }
  // Adds a chunk's products with x at `x_at`; `ends`: it is the last that its group's scale
  // multiplies.
  __device__ void Multiply(const Chunk& loaded, const Scales& scales, const X& x, uint32_t x_at,
                           int chunk, bool ends) {
    float(&to)[kTiles][kColumns][4] = Format::kChunkScale ? group_ : sum;
#pragma unroll
    for (int i = 0; i < Format::kLaneK / 8; ++i) {
      uint32_t w[kTiles][2][4];
#pragma unroll
      for (int j = 0; j < 2 * kTiles; ++j) {
        Format::Unpack(loaded.piece[j / 2][j % 2], i, loaded.of.lane[j / 2][j % 2],
                       w[j / 2][j % 2]);
      }
      MultiplyPiece(x.At(x_at, i), kFolds && i == 0, w, to);
    }
    if (kFolds) Fold(loaded.of.scale);
    if (Format::kChunkScale && !kFolds && ends) Fold(scales.Read(chunk).scale);
  }

 private:
  // `first`: d is written, not added to.
  __device__ static void MultiplyBy(float (&d)[4], bool first, uint32_t a0, uint32_t a1,
                                    uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
    if constexpr (Format::kHalves) {
      if (first) d[0] = d[1] = d[2] = d[3] = 0;
      MultiplyHalfTile(d, a0, a1, a2, a3, b0, b1);
    } else if (first) {
      MultiplyFirstTile(d, a0, a1, a2, a3, b0, b1);
    } else {
      MultiplyTile(d, a0, a1, a2, a3, b0, b1);
    }
  }
  __device__ static void MultiplyPiece(uint32_t x_at, bool first, const uint32_t (&w)[kTiles][2][4],
                                       float (&to)[kTiles][kColumns][4]) {
    // A product waits for the one before on the same sum: others come in between, four columns at a
    // time, so that their pieces of x find room.
    constexpr int kTogether = kColumns < 4 ? kColumns : 4;
#pragma unroll
    for (int from = 0; from < kColumns; from += kTogether) {
      uint4 x[kTogether];
#pragma unroll
      for (int c = 0; c < kTogether; ++c) x[c] = X::Piece(x_at, from + c);
#pragma unroll
      for (int c = 0; c < kTogether; ++c) {
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
          float(&d)[4] = to[j][from + c];
          MultiplyBy(d, first, w[j][0][0], w[j][1][0], w[j][0][1], w[j][1][1], x[c].x, x[c].y);
        }
      }
#pragma unroll
      for (int c = 0; c < kTogether; ++c) {
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
          MultiplyBy(to[j][from + c], false, w[j][0][2], w[j][1][2], w[j][0][3], w[j][1][3], x[c].z,
                     x[c].w);
        }
      }
    }
  }

  __device__ void Fold(const float (&scale)[kTiles][2]) {
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          sum[j][c][i] = fmaf(scale[j][i / 2], group_[j][c][i], sum[j][c][i]);
          if (!kFolds) group_[j][c][i] = 0;
        }
      }
    }
  }

  float group_[kTiles][kColumns][4] = {};
};

// The results of a tile of 16 weight rows.
template <class Format, Output kOutput, int kColumns>
__device__ inline void StoreQuantSums(const MatmulArgs& a, int32_t tile,
                                      const float (&sum)[kColumns][4]) {
  const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
  const TileRows rows = RowsOfTile<kOutput>(a, tile, g);
  if (rows.low < 0) return;
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int r = c * 8 + 2 * t + j;
      if (r >= a.rows) continue;
      const float low = sum[c][j] * Format::kFactor, high = sum[c][j + 2] * Format::kFactor;
      if constexpr (kOutput == Output::kGateUp) {
        StoreGateUp(a, 0, r, rows.low, low, high);
      } else if constexpr (kOutput == Output::kQkv) {
        StoreQkv(TargetOfPair(a, tile * 8 + g, r), low, high);
      } else {
        StoreResult<kOutput>(a, 0, r, rows.low, low);
        if (rows.high >= 0) StoreResult<kOutput>(a, 0, r, rows.high, high);
      }
    }
  }
}

// Of the tile `j` of a block, as a part of a result. parts: f32 [kM][kBatchN].
template <class Format, int kColumns>
__device__ inline void StoreQuantPart(const MatmulArgs& a, int j, const float (&sum)[kColumns][4],
                                      float* parts) {
  const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = c * 8 + 2 * t + i % 2;
      if (row < a.rows) {
        parts[row * kBatchN + j * 16 + g + i / 2 * 8] = sum[c][i] * Format::kFactor;
      }
    }
  }
}

// Two warps that took turns along k add up what they have: each keeps one of the two tiles and
// gives the other away.
template <int kWarpsN, int kTiles, int kColumns>
__device__ inline void MeetWarps(uint32_t shared, float (&sum)[kTiles][kColumns][4]) {
  static_assert(kTiles == 2);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const auto at = [&](int of, int c) { return shared + ((of * kColumns + c) * kWarp + lane) * 16; };
  const bool second = warp >= kWarpsN;
  __syncthreads();
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    uint4 given;
    uint32_t(&v)[4] = reinterpret_cast<uint32_t(&)[4]>(given);
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = __float_as_uint(second ? sum[0][c][i] : sum[1][c][i]);
    StorePiece(at(warp, c), given);
  }
  __syncthreads();
  const int other = second ? warp - kWarpsN : warp + kWarpsN;
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const uint4 taken = LoadPiece(at(other, c));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sum[0][c][i] = (second ? sum[1][c][i] : sum[0][c][i]) + __uint_as_float(WordOf(taken, i));
    }
  }
}

// parts, with k cut: f32 [splits][tiles][kM][kBatchN]; else null.
template <class Format, Output kOutput, int kM>
__global__ __launch_bounds__(QuantStage<Format, kM>::kThreads,
                             2) void QuantBatch(const MatmulArgs a, int stages, int steps_each,
                                                float* parts) {
  using Stage = QuantStage<Format, kM>;
  constexpr int kTiles = Stage::kTiles;
  extern __shared__ __align__(128) uint4 shared[];
  const int warp = threadIdx.x / kWarp;
  const int warp_n = warp % Stage::kWarpsN, warp_k = warp / Stage::kWarpsN;
  const int32_t first_tile = static_cast<int32_t>(blockIdx.x) * (kBatchN / 16) + warp_n * kTiles;
  int first = blockIdx.y * steps_each;
  Keep(first);
  const int steps = min(steps_each, (static_cast<int>(a.k) + Stage::kK - 1) / Stage::kK - first);
  const uint32_t ring = SharedAddress(shared), end = ring + stages * Stage::kBytes;
  uint32_t own =
      Stage::kXBytes + warp * (Stage::kChunks * Stage::kWeightBytes) + threadIdx.x % kWarp * 16;
  uint32_t x_own = warp_k * (Stage::kChunks * Stage::kXChunkBytes);
  Keep(own), Keep(x_own);

  GridTrigger();
  QuantWeights<Format, kM> weights;
  weights.template Set<kOutput>(a, first_tile, (first * Stage::kWarpsK + warp_k) * Stage::kChunks);
  QuantScales<Format, kM> scales;
  scales.template Set<kOutput>(a, end, blockIdx.x * (kBatchN / 16), warp_n * Stage::kWarpRows,
                               first);
  const auto copy_weights = [&](uint32_t at, int step) {
    if (step >= steps) return;
    weights.Copy(at + own);
    scales.Copy(first + step);
  };
#pragma unroll 1
  for (int i = 0; i < stages - 1; ++i) copy_weights(ring + i * Stage::kBytes, i);
  GridWait();
  QuantX<Format, kM> x(a, first);
#pragma unroll 1
  for (int i = 0; i < stages - 1; ++i) {
    if (i < steps) x.Copy(ring + i * Stage::kBytes);
    CopyCommit();
  }

  int pending = stages - 2;
  Keep(pending);
  using Sums = QuantSums<Format, kM>;
  Sums sums;
  uint32_t at = ring, to = end - Stage::kBytes;
  int chunk = (first * Stage::kWarpsK + warp_k) * Stage::kChunks;
  for (int step = 0; step < steps; ++step) {
    CopyWaitBut(pending);
    __syncthreads();
    typename Sums::Chunk loaded;
    if constexpr (Sums::kLoadsEarly) loaded = Sums::Load(scales, at + own, chunk);
    if (step + stages - 1 < steps) {
      copy_weights(to, step + stages - 1);
      x.Copy(to);
    }
    CopyCommit();
    if constexpr (!Sums::kLoadsEarly) loaded = Sums::Load(scales, at + own, chunk);
#pragma unroll
    for (int c = 0; c < Stage::kChunks; ++c) {
      const bool last = step == steps - 1 && c == Stage::kChunks - 1;
      const int following = chunk + (c + 1 < Stage::kChunks ? c + 1 : Stage::kK / Stage::kChunkK);
      sums.Multiply(loaded, scales, x, at + x_own + c * Stage::kXChunkBytes, chunk + c,
                    last || scales.Group(chunk + c) != scales.Group(following));
      if (c + 1 < Stage::kChunks) {
        loaded = Sums::Load(scales, at + own + (c + 1) * Stage::kWeightBytes, chunk + c + 1);
      }
    }
    chunk += Stage::kK / Stage::kChunkK;
    at = at + Stage::kBytes == end ? ring : at + Stage::kBytes;
    to = to + Stage::kBytes == end ? ring : to + Stage::kBytes;
  }
  if (parts != nullptr) {
    parts += (int64_t{blockIdx.y} * gridDim.x + blockIdx.x) * kM * kBatchN;
  }
  const auto store = [&](int j, const float(&sum)[kM / 8][4]) {
    if (parts == nullptr) {
      StoreQuantSums<Format, kOutput>(a, first_tile + j, sum);
    } else {
      StoreQuantPart<Format>(a, warp_n * kTiles + j, sum, parts);
    }
  };
  if constexpr (Stage::kWarpsK == 2) {
    MeetWarps<Stage::kWarpsN>(ring, sums.sum);
    store(warp_k, sums.sum[0]);
  } else {
#pragma unroll
    for (int j = 0; j < kTiles; ++j) store(j, sums.sum[j]);
  }
}

template <class Format, Output kOutput, int kM>
OpError RunQuantBatch(const MatmulArgs& a, const LaunchContext& context) {
  using Stage = QuantStage<Format, kM>;
  const auto kernel = QuantBatch<Format, kOutput, kM>;
  constexpr int kScales = QuantScales<Format, kM>::kBytes;
  static_assert(2 * Stage::kBytes + kScales <= 99 << 10);
  const int stages = RingStages(Stage::kBytes, kScales, context.capability);
  const int64_t shared = RingShared(stages, Stage::kBytes, kScales, context.capability);
  SWITCHYARD_RETURN_IF_OP_ERROR(AllowShared(kernel, shared));
  const int steps = static_cast<int>((a.k + Stage::kK - 1) / Stage::kK);
  const BatchParts parts = PlanParts(a, kM, steps, kQuantLeastSteps, context.multiprocessors);
  SWITCHYARD_RETURN_IF_OP_ERROR(Launch(context, dim3(parts.tiles, parts.splits), Stage::kThreads,
                                       shared, kernel, a, stages, parts.steps_each, parts.data));
  return parts.data != nullptr ? AddParts(a, kM, parts, context) : OpError{};
}

template <class Format, Output kOutput>
OpError RunQuantBatch(const MatmulArgs& a, const LaunchContext& context) {
  if (a.rows <= 8) return RunQuantBatch<Format, kOutput, 8>(a, context);
  if (a.rows <= 16) return RunQuantBatch<Format, kOutput, 16>(a, context);
  if (a.rows <= 32) return RunQuantBatch<Format, kOutput, 32>(a, context);
  return RunQuantBatch<Format, kOutput, 64>(a, context);
}

template <class Format>
OpError RunQuantBatch(const MatmulArgs& a, const LaunchContext& context) {
  return ForBatchOutput(a.output, [&](auto output) {
    return RunQuantBatch<Format, decltype(output)::value>(a, context);
  });
}

}  // namespace switchyard::kernels::cuda
