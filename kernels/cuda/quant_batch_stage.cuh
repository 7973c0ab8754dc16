#pragma once

// A stage of the ring of quant_batch.cuh: x and weights as they lie in shared memory, and how a
// block's lanes copy and read them.

#include <algorithm>

#include "kernels/cuda/batch_parts.cuh"
#include "kernels/cuda/copy_barrier.cuh"
#include "kernels/cuda/keep.cuh"
#include "kernels/cuda/ring_stages.h"
#include "kernels/cuda/weight_formats.cuh"
#include "kernels/cuda/weight_tile.cuh"

namespace switchyard::kernels::cuda {

// kM: rows of x that a block is made for. A warp takes 32 weight rows as two tiles of 16; where the
// sums leave room for as many threads, two warps share those rows and take turns along k.
template <class Format, int kM>
struct QuantStage {
  static constexpr int kTiles = 2;
  static constexpr int kWarpRows = 16 * kTiles;
  static constexpr int kWarpsN = kBatchN / kWarpRows;
  static constexpr int kWarpsK = kM <= 16 ? 2 : 1;
  static constexpr int kThreads = kWarpsN * kWarpsK * kWarp;
  static constexpr int kChunkK = 4 * Format::kLaneK;                     // 64 bytes of a weight row
  static constexpr int kChunks = kWarpsK == 1 && kChunkK < 128 ? 2 : 1;  // of a warp
  static constexpr int kK = kWarpsK * kChunks * kChunkK;

  static constexpr int kXChunkBytes = kM * kChunkK * 2;
  static constexpr int kXBytes = kWarpsK * kChunks * kXChunkBytes;
  static constexpr int kWeightBytes = kWarpRows * 64;  // of a warp's chunk
  static constexpr int kBytes = kXBytes + kThreads / kWarp * kChunks * kWeightBytes;
};

__device__ inline void CopyPieceOrZeros(uint32_t shared, const void* global, bool valid) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}

// A lane's part of its warp's weight rows, which only it copies and reads: of tile j rows g and
// g + 8, of a chunk the columns from t * kLaneK on. Steps are copied one after the other.
template <class Format, int kM>
class QuantWeights {
 public:
  using Stage = QuantStage<Format, kM>;

  // A row that does not exist is read as the first one; its results are never stored.
  template <Output kOutput>
  __device__ void Set(const MatmulArgs& a, int32_t first_tile, int first_chunk) {
    const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
    pieces_ =
        static_cast<int>(a.k) / Format::kLaneK - t - first_chunk * 4 + Stage::kK / Format::kLaneK;
#pragma unroll
    for (int j = 0; j < Stage::kTiles; ++j) {
      const TileRows rows = RowsOfTile<kOutput>(a, first_tile + j, g);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t row = max(half == 0 ? rows.low : rows.high, 0);
        from_[j][half] = static_cast<const char*>(a.w) + row * (a.k * 16 / Format::kLaneK) +
                         t * 16 + first_chunk * 64 - kStepBytes;
        Keep(from_[j][half]);
      }
    }
  }

  // The next step's chunks. `at`: of the warp's in shared memory, and of the lane in them.
  __device__ void Copy(uint32_t at) {
    // First, since copies have read the registers some time after they began.
#pragma unroll
    for (int i = 0; i < 2 * Stage::kTiles; ++i) from_[i / 2][i % 2] += kStepBytes;
    pieces_ -= Stage::kK / Format::kLaneK;
#pragma unroll
    for (int c = 0; c < Stage::kChunks; ++c) {
      const bool inside = c * 4 < pieces_;
#pragma unroll
      for (int i = 0; i < 2 * Stage::kTiles; ++i) {
        CopyPieceOrZeros(at + c * Stage::kWeightBytes + i * 512, from_[i / 2][i % 2] + c * 64,
                         inside);
      }
    }
  }
  __device__ static uint4 Piece(uint32_t at, int j, int half) {
    return LoadPiece(at + (2 * j + half) * 512);
  }

 private:
  static constexpr int kStepBytes = Stage::kK / Stage::kChunkK * 64;

  const char* from_[Stage::kTiles][2];  // a step before the next one
  int pieces_;                          // of a row, from there on
};

// x of a block. A row of a chunk lies as it is but for the order of its 16-byte pieces in each 128
// bytes: what eight lanes read together, kLanePieces apart and of two rows, meets no bank twice.
template <class Format, int kM>
class QuantX {
 public:
  using Stage = QuantStage<Format, kM>;

  __device__ QuantX(const MatmulArgs& a, int first_step) {
    const int row = threadIdx.x / kPieces, piece = threadIdx.x % kPieces;
    const int column = piece * 8 + (first_step - 1) * Stage::kK;
    columns_ = static_cast<int>(a.k) - column;
    rows_ = row < kM ? a.rows - row : 0;
    row_bytes_ = static_cast<uint32_t>(a.k) * 2 * kRowsAtOnce;
    from_ = reinterpret_cast<const char*>(a.x + row * a.k + column);
    to_ = piece / kChunkPieces * Stage::kXChunkBytes + row * kRowBytes +
          Place(row, piece % kChunkPieces);
    const int g = threadIdx.x % kWarp / 4, t = threadIdx.x % 4;
    read_ = g * kRowBytes + Place(g, t * kLanePieces);
    Keep(rows_), Keep(row_bytes_), Keep(from_), Keep(to_), Keep(read_);
  }

  // The next step's. `at`: of the stage.
  __device__ void Copy(uint32_t at) {
    from_ += Stage::kK * 2;
    columns_ -= Stage::kK;
    const int rows = columns_ > 0 ? rows_ : 0;
    const char* from = from_;
#pragma unroll
    for (int i = 0; i < kM; i += kRowsAtOnce) {
      if (kM >= kRowsAtOnce || threadIdx.x < kM * kPieces) {
        CopyPieceOrZeros(at + to_ + i * kRowBytes, from, i < rows);
      }
      from += row_bytes_;
    }
  }

  // Of a chunk: where the lane reads its piece i of row 8c + g.
  __device__ uint32_t At(uint32_t chunk_at, int i) const { return (chunk_at + read_) ^ i * 16; }
  __device__ static uint4 Piece(uint32_t at, int c) { return LoadPiece(at + c * 8 * kRowBytes); }

 private:
  static constexpr int kPieces = Stage::kK / 8;  // of a row
  static constexpr int kRowBytes = Stage::kChunkK * 2;
  static constexpr int kChunkPieces = Stage::kChunkK / 8, kLanePieces = Format::kLaneK / 8;
  static constexpr int kRowsAtOnce = Stage::kThreads / kPieces;
  static_assert(kM < kRowsAtOnce || kM % kRowsAtOnce == 0);
  static_assert(kRowsAtOnce % 2 == 0, "Place tells even rows from odd ones");

  __device__ static uint32_t Place(int row, int piece) {
    return (piece ^ piece >> 3 ^ row % 2 * (kLanePieces / 2)) * 16;
  }

  int columns_;         // of x, from the thread's own of the step before the next one on
  int rows_;            // from its own on
  uint32_t row_bytes_;  // from one of its rows to the next
  uint32_t to_, read_;
  const char* from_;  // a step before the next one
};

}  // namespace switchyard::kernels::cuda
