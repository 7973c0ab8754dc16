#pragma once

// Scales and zeros of a block's weight rows in quant_batch.cuh: for each row a ring of 16-byte
// pieces in shared memory, filled ahead of the weights. A byte lies at its address modulo the ring.

#include "kernels/cuda/quant_batch_stage.cuh"

namespace switchyard::kernels::cuda {

// Bytes of a ring that holds `each` of every group of all stages, in whole pieces.
__host__ __device__ constexpr int ScaleRing(int each, int step_groups) {
  int ring = 32;
  while (ring < kQuantStages * step_groups * each + 16 - each) ring *= 2;
  return ring;
}

// A row's array in global memory and its ring; what its one owner copies.
template <int kRing>
struct ScalePieces {
  const char* aligned = nullptr;  // the piece in which the row's array begins
  uint32_t skew = 0, next = 0;    // where it begins in that; what is copied next

  __device__ void Set(const void* array, int64_t byte, uint32_t first) {
    const char* row = static_cast<const char*>(array) + byte;
    skew = reinterpret_cast<uintptr_t>(row) % 16;
    aligned = row - skew;
    next = (skew + first) & ~15u;
  }
  // All pieces up to that which holds the row's byte `last`.
  __device__ void CopyTo(uint32_t ring, uint32_t last) {
#pragma unroll 1
    for (; next <= skew + last; next += 16) {
      const char* from = aligned + next;
      CopyPiece(ring + (static_cast<uint32_t>(reinterpret_cast<uintptr_t>(from)) & (kRing - 1)),
                from);
    }
  }
};

template <class Format, int kM>
class QuantScales {
 public:
  using Stage = QuantStage<Format, kM>;
  using Lane = typename Format::Lane;
  static constexpr int kEach = Format::kScaleBytes;
  static constexpr int kStepGroups = Stage::kK / (Format::kChunkScale ? 128 : 32);  // at most
  static constexpr int kRing = ScaleRing(kEach, kStepGroups), kZeroRing = ScaleRing(1, kStepGroups);
  // Rows are so far apart that the lanes of eight meet no bank twice.
  static constexpr int kRow = kRing + 16, kZeroRow = kZeroRing + 16;
  static constexpr int kZeros = kBatchN * kRow;  // where those of zeros begin
  static constexpr int kBytes = kZeros + (Format::kHasZeros ? kBatchN * kZeroRow : 0);

  // `at`: of all rings. `tile`: the block's first. The lane reads those of the rows that it
  // multiplies and copies those of row threadIdx.x.
  template <Output kOutput>
  __device__ void Set(const MatmulArgs& a, uint32_t at, int32_t tile, int warp_row, int step) {
    const int lane = threadIdx.x % kWarp, g = lane / 4;
    shift_ = a.group_shift;
    last_piece_ = static_cast<int>(a.k) / Format::kLaneK - 1;
    Keep(shift_), Keep(last_piece_);
    read_ = at + (warp_row + g) * kRow;
    read_zero_ = at + kZeros + (warp_row + g) * kZeroRow;
#pragma unroll
    for (int j = 0; j < Stage::kTiles; ++j) {
      const TileRows rows = RowsOfTile<kOutput>(a, tile + warp_row / 16 + j, g);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        bytes_[j][half] = static_cast<uint32_t>(
            Format::RowElement(a, 0, max(half == 0 ? rows.low : rows.high, 0)) * kEach);
        Keep(bytes_[j][half]);
      }
    }
    Keep(read_);
    if (threadIdx.x >= kBatchN) return;
    const TileRows rows = RowsOfTile<kOutput>(a, tile + threadIdx.x / 16, threadIdx.x % 8);
    const int64_t element =
        Format::RowElement(a, 0, max(threadIdx.x % 16 < 8 ? rows.low : rows.high, 0));
    const uint32_t first = GroupOf(step * (Stage::kK / Format::kLaneK));
    copy_ = at + threadIdx.x * kRow;
    copy_zero_ = at + kZeros + threadIdx.x * kZeroRow;
    pieces_.Set(a.scales, element * kEach, first * kEach);
    if (Format::kHasZeros) zero_pieces_.Set(a.zeros, element, first);
  }

  // What a step needs and no step before did.
  __device__ void Copy(int step) {
    if (threadIdx.x >= kBatchN) return;
    const uint32_t last = GroupOf((step + 1) * (Stage::kK / Format::kLaneK) - 1);
    pieces_.CopyTo(copy_, last * kEach);
    if (Format::kHasZeros) zero_pieces_.CopyTo(copy_zero_, last);
  }

  struct OfChunk {
    Lane lane[Stage::kTiles][2];
    float scale[Stage::kTiles][2];
  };
  __device__ OfChunk Read(int chunk) const {
    OfChunk of;
    const uint32_t group = Group(chunk);
    ScaleWords words[Stage::kTiles][2];
#pragma unroll
    for (int i = 0; i < 2 * Stage::kTiles; ++i) {
      ScaleWords& w = words[i / 2][i % 2];
      const uint32_t byte = bytes_[i / 2][i % 2] + group * kEach;
      w.scale = LoadWord<kEach>(read_ + i * 8 * kRow + (byte & (kRing - 1)));
      w.zero = 8;
    }
    if (Format::kHasZeros) {
#pragma unroll
      for (int i = 0; i < 2 * Stage::kTiles; ++i) {
        const uint32_t element = bytes_[i / 2][i % 2] / kEach + group;
        words[i / 2][i % 2].zero =
            LoadWord<1>(read_zero_ + i * 8 * kZeroRow + (element & (kZeroRing - 1)));
      }
    }
#pragma unroll
    for (int i = 0; i < 2 * Stage::kTiles; ++i) {
      of.lane[i / 2][i % 2] = Format::Prepare(words[i / 2][i % 2]);
      of.scale[i / 2][i % 2] = Format::ChunkScale(words[i / 2][i % 2]);
    }
    return of;
  }
  // Which of a row's scales; behind the row's end the last one, of weights that are zeros.
  __device__ int32_t Group(int chunk) const {
    return GroupOf(chunk * 4 + (Format::kChunkScale ? 0 : threadIdx.x % 4));
  }

 private:
  __device__ int32_t GroupOf(int piece) const {
    return min(piece, last_piece_) * Format::kLaneK >> shift_;
  }

  int shift_, last_piece_;
  uint32_t read_, read_zero_, copy_ = 0, copy_zero_ = 0;
  uint32_t bytes_[Stage::kTiles][2];  // of a row's first scale
  ScalePieces<kRing> pieces_;
  ScalePieces<kZeroRing> zero_pieces_;
};

}  // namespace switchyard::kernels::cuda
