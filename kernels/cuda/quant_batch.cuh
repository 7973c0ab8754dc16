#pragma once

// Product of quantized weights with up to 64 rows of x: decode of a batch.
//
// A block has 128 weight rows (of gate and up: 64 each), all rows of x, and a part of k. Each of
// its eight warps takes 16 weight rows as the left operand of the tensor core: a lane holds 16
// bytes of each of two rows, which only it reads, and turns them into bf16 in registers; x is the
// right operand and lies in shared memory, in the order in which lanes meet its columns. Both
// arrive by cp.async through a ring of up to eight stages, weights and scales of the first ones
// before the kernel in front has ended. Where blocks of whole rows leave multiprocessors idle, k is
// cut, and a second kernel adds the parts up in their order (batch_parts.cuh).
//
// Bound by instructions: of fp8 and 1 KiB of weights 160 in all with 8 rows, of which 80 widen the
// weights, and 300 with 64 rows, at half an instruction a cycle and scheduler. Tried: products on
// one sum four apart instead of one after the other, fewer parts of k, longer ones (no change).
// The kernel before it, with x from the caches, was 7% ahead for fp8 with 9 to 16 rows, and level
// or behind for all else.

#include <algorithm>

#include "kernels/cuda/batch_parts.cuh"
#include "kernels/cuda/choose.h"
#include "kernels/cuda/copy_barrier.cuh"
#include "kernels/cuda/multiply_chunk.cuh"
#include "kernels/cuda/weight_tile.cuh"

namespace switchyard::kernels::cuda {

constexpr int kQuantWarps = 8, kQuantThreads = kQuantWarps * kWarp;
constexpr size_t kQuantShared = 96 << 10;
constexpr int kQuantLeastSteps = 2;  // of a part of k

// kM: rows of x that a block is made for.
template <class Format, int kM>
struct QuantStage {
  static constexpr int kChunks = kM <= 16 ? 2 : 1;  // of 64 bytes of a weight row
  static constexpr int kChunkK = 4 * Format::kLaneK;
  static constexpr int kXPieces = kChunkK / 8;  // of a row and chunk
  static constexpr int kXBytes = kM * kChunkK * 2;
  static constexpr int kWeightBytes = kBatchN * 64;
  // Four lanes share a row's scale, or each has its own.
  static constexpr int kWordsOfRow = Format::kChunkScale ? 1 : 4;
  static constexpr int kWordBytes = kBatchN * kWordsOfRow * 4;
  static constexpr int kChunkBytes =
      kXBytes + kWeightBytes + kWordBytes * (Format::kHasZeros ? 2 : 1);
  static constexpr int kBytes = kChunks * kChunkBytes;
  static constexpr int kStages = kQuantShared / kBytes < 8 ? kQuantShared / kBytes : 8;
  static_assert(kStages >= 3);
};

template <class Format, int kM>
__host__ __device__ inline int QuantSteps(int64_t k) {
  constexpr int kStepK = QuantStage<Format, kM>::kChunks * QuantStage<Format, kM>::kChunkK;
  return static_cast<int>((k + kStepK - 1) / kStepK);
}

__device__ inline void CopyPieceOrZeros(uint32_t shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}
// The aligned word around `global`; arrays lie at multiples of 256 bytes, so that it is inside.
__device__ inline void CopyWordAround(uint32_t shared, uint64_t global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(shared), "l"(global & ~uint64_t{3})
               : "memory");
}

// A lane's part of two weight rows: what it copies and what it multiplies.
template <class Format, int kM>
class QuantRows {
 public:
  using Stage = QuantStage<Format, kM>;

  // A row that does not exist is read as the first one; its results are never stored.
  __device__ QuantRows(const MatmulArgs& a, const TileRows& rows) : a_(a) {
    const int warp = threadIdx.x / kWarp, g = threadIdx.x % kWarp / 4;
    t_ = threadIdx.x % 4;
    piece_ = Stage::kXBytes + threadIdx.x * 16;
    const int word = Format::kChunkScale ? warp * 8 + g : static_cast<int>(threadIdx.x);
    word_ = Stage::kXBytes + Stage::kWeightBytes + word * 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t row = max(half == 0 ? rows.low : rows.high, 0);
      weights_[half] = static_cast<const char*>(a.w) + row * (a.k * 16 / Format::kLaneK) + t_ * 16;
      const int64_t element = Format::RowElement(a, 0, row);
      scales_[half] = reinterpret_cast<uint64_t>(a.scales) +
                      static_cast<uint64_t>(element) * Format::kScaleBytes;
      if (Format::kHasZeros) zeros_[half] = reinterpret_cast<uint64_t>(a.zeros) + element;
    }
  }

  // `at`: of the chunk in shared memory.
  __device__ void Copy(uint32_t at, int chunk) const {
    const bool inside = Inside(chunk);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      CopyPieceOrZeros(at + piece_ + half * (Stage::kWeightBytes / 2),
                       weights_[half] + (inside ? chunk * 64 : 0), inside);
    }
    if (!HasScale(chunk) || (Format::kChunkScale && t_ != 0)) return;
    const int32_t group = Group(chunk);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t to = at + word_ + half * (Stage::kWordBytes / 2);
      CopyWordAround(to, scales_[half] + group * Format::kScaleBytes);
      if (Format::kHasZeros && a_.zeros != nullptr) {
        CopyWordAround(to + Stage::kWordBytes, zeros_[half] + group);
      }
    }
  }

  __device__ uint4 Piece(uint32_t at, int half) const {
    return LoadPiece(at + piece_ + half * (Stage::kWeightBytes / 2));
  }
  __device__ ScaleWords Scales(uint32_t at, int chunk, int half) const {
    ScaleWords words;
    if (!HasScale(chunk)) return words;  // the weights are zeros
    const int32_t group = Group(chunk);
    const uint32_t from = at + word_ + half * (Stage::kWordBytes / 2);
    words.scale = LoadWord<4>(from);
    words.scale_at = static_cast<uint32_t>(scales_[half]) + group * Format::kScaleBytes;
    if (Format::kHasZeros) {
      words.zero = a_.zeros != nullptr ? LoadWord<4>(from + Stage::kWordBytes) : 0x08080808;
      words.zero_at = static_cast<uint32_t>(zeros_[half]) + group;
    }
    return words;
  }

 private:
  __device__ bool Inside(int chunk) const { return (chunk * 4 + t_) * Format::kLaneK < a_.k; }
  // A chunk's scale multiplies sums in every lane, also in one whose own columns do not exist.
  __device__ bool HasScale(int chunk) const {
    return Format::kChunkScale ? chunk * Stage::kChunkK < a_.k : Inside(chunk);
  }
  // Which of a row's scales.
  __device__ int32_t Group(int chunk) const {
    return (chunk * 4 + (Format::kChunkScale ? 0 : t_)) * Format::kLaneK >> a_.group_shift;
  }

  const MatmulArgs& a_;
  int t_;
  uint32_t piece_, word_;
  const char* weights_[2];
  uint64_t scales_[2], zeros_[2];
};

// x of a block: rows of a chunk in shared memory. A lane's eight columns are a piece; the pieces
// that four lanes read together are neighbours, and rows take turns with two such neighbourhoods,
// so that eight lanes meet no bank twice.
template <class Format, int kM>
class QuantX {
 public:
  using Stage = QuantStage<Format, kM>;
  static constexpr int kLanePieces = Format::kLaneK / 8;

  __device__ explicit QuantX(const MatmulArgs& a) : a_(a) {
    const int piece = threadIdx.x % Stage::kXPieces;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int row = threadIdx.x / Stage::kXPieces + i * kRowsAtOnce;
      const bool is = row < a.rows && row < kM;
      from_[i] = is ? a.x + InputRow(a, row) * a.k + piece * 8 : nullptr;
    }
    column_ = piece * 8;
  }

  __device__ void Copy(uint32_t at, int chunk) const {
    const int32_t first = chunk * Stage::kChunkK;
    const bool inside = first + column_ < a_.k;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int row = threadIdx.x / Stage::kXPieces + i * kRowsAtOnce;
      if (kM < kRowsAtOnce && row >= kM) continue;
      const bool valid = inside && from_[i] != nullptr;
      CopyPieceOrZeros(at + Place(row, column_ / 8 / kLanePieces, column_ / 8 % kLanePieces),
                       valid ? from_[i] + first : a_.x, valid);
    }
  }

  // Of row 8c + g: the lane's piece i.
  __device__ static uint4 Piece(uint32_t at, int c, int i) {
    return LoadPiece(at + Place(c * 8 + threadIdx.x % kWarp / 4, threadIdx.x % 4, i));
  }

 private:
  static constexpr int kRowsAtOnce = kQuantThreads / Stage::kXPieces;
  static constexpr int kRows = (kM + kRowsAtOnce - 1) / kRowsAtOnce;

  __device__ static uint32_t Place(int row, int t, int i) {
    return row * (Stage::kChunkK * 2) + (i ^ row % 2) * 64 + t * 16;
  }

  const MatmulArgs& a_;
  int32_t column_;
  const Bf16* from_[kRows];
};

// The results of a lane: of weight rows g and g + 8, columns 8c + 2t and 8c + 2t + 1.
template <class Format, Output kOutput, int kTiles>
__device__ inline void StoreQuantSums(const MatmulArgs& a, int32_t tile,
                                      const float (&sum)[kTiles][4]) {
  const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
  const TileRows rows = RowsOfTile<kOutput>(a, tile, g);
  if (rows.low < 0) return;
#pragma unroll
  for (int c = 0; c < kTiles; ++c) {
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

// parts, with k cut: f32 [splits][tiles][kM][kBatchN]; else null.
template <class Format, Output kOutput, int kM>
__global__ __launch_bounds__(kQuantThreads, 2) void QuantBatch(const MatmulArgs a, int steps_each,
                                                               float* parts) {
  using Stage = QuantStage<Format, kM>;
  constexpr int kStages = Stage::kStages, kTiles = kM / 8;
  extern __shared__ __align__(128) uint4 shared[];
  const int warp = threadIdx.x / kWarp, g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
  const int32_t tile = static_cast<int32_t>(blockIdx.x) * kQuantWarps + warp;
  const int first = blockIdx.y * steps_each, all = QuantSteps<Format, kM>(a.k);
  const int steps = min(steps_each, all - first);
  const uint32_t ring = SharedAddress(shared);

  GridTrigger();
  const QuantRows<Format, kM> rows(a, RowsOfTile<kOutput>(a, tile, g));
  const QuantX<Format, kM> x(a);
  const auto chunk_at = [&](int step, int c) {
    return ring + step % kStages * Stage::kBytes + c * Stage::kChunkBytes;
  };
  const auto copy = [&](const auto& what, int step) {
    if (step >= steps) return;
#pragma unroll
    for (int c = 0; c < Stage::kChunks; ++c) {
      what.Copy(chunk_at(step, c), (first + step) * Stage::kChunks + c);
    }
  };
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) copy(rows, i);
  GridWait();
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) copy(x, i), CopyCommit();

  float sum[kTiles][4] = {};
  for (int step = 0; step < steps; ++step) {
    CopyWait<kStages - 2>();
    __syncthreads();
    copy(rows, step + kStages - 1);
    copy(x, step + kStages - 1);
    CopyCommit();
#pragma unroll
    for (int c = 0; c < Stage::kChunks; ++c) {
      const uint32_t at = chunk_at(step, c);
      const int chunk = (first + step) * Stage::kChunks + c;
      MultiplyChunk<Format, false, kTiles>(
          rows.Piece(at, 0), rows.Piece(at, 1), rows.Scales(at, chunk, 0),
          rows.Scales(at, chunk, 1),
          [&](int i, int piece) { return QuantX<Format, kM>::Piece(at, i, piece); }, sum);
    }
  }
  if (parts == nullptr) return StoreQuantSums<Format, kOutput>(a, tile, sum);
  parts += (int64_t{blockIdx.y} * gridDim.x + blockIdx.x) * kM * kBatchN + warp * 16 + g;
#pragma unroll
  for (int c = 0; c < kTiles; ++c) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = c * 8 + 2 * t + i % 2;
      if (row < a.rows) parts[row * kBatchN + i / 2 * 8] = sum[c][i] * Format::kFactor;
    }
  }
}

template <class Format, Output kOutput, int kM>
OpError RunQuantBatch(const MatmulArgs& a, const LaunchContext& context) {
  using Stage = QuantStage<Format, kM>;
  const auto kernel = QuantBatch<Format, kOutput, kM>;
  constexpr size_t kShared = size_t{Stage::kStages} * Stage::kBytes;
  SWITCHYARD_RETURN_IF_OP_ERROR(AllowShared(kernel, kShared));
  const BatchParts parts =
      PlanParts(a, kM, QuantSteps<Format, kM>(a.k), kQuantLeastSteps, context.multiprocessors);
  SWITCHYARD_RETURN_IF_OP_ERROR(Launch(context, dim3(parts.tiles, parts.splits), kQuantThreads,
                                       kShared, kernel, a, parts.steps_each, parts.data));
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
  return ForOutput(a.output, [&](auto output) {
    return RunQuantBatch<Format, decltype(output)::value>(a, context);
  });
}

}  // namespace switchyard::kernels::cuda
