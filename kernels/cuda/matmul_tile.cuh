#pragma once

// What the products over tiles share: how a stage of 64 columns lies in shared memory, and which
// weight rows a block's tile holds.

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/matmul.h"

namespace switchyard::kernels::cuda {

constexpr int kStageK = 64;
constexpr int kStagePieces = kStageK / 8;  // 16-byte pieces of a row of a stage

// Swizzled by the row, so that ldmatrix meets no bank twice.
__device__ inline uint4* StagePiece(uint4* tile, int row, int piece) {
  return tile + row * kStagePieces + (piece ^ (row % 8));
}

// Tiles of up to m rows that a product has.
inline int64_t TilesOfRows(const MatmulArgs& a, int64_t m) {
  if (a.tiles.entry != nullptr) return a.tiles.most;
  return a.expert != nullptr ? a.rows : (a.rows + m - 1) / m;
}

// Weight row of row `i` of a block's tile of kN; -1: none. Of gate and up, 2 kTogether rows are
// kTogether of gate and the same of up, so that they meet in one thread's registers.
template <bool kGated, int kN, int kTogether>
__device__ inline int64_t TileWeightRow(const MatmulArgs& a, int64_t tile, int i) {
  if constexpr (kGated) {
    const int64_t column = tile * (kN / 2) + i / (2 * kTogether) * kTogether + i % kTogether;
    if (column >= a.n / 2) return -1;
    return column + (i % (2 * kTogether) >= kTogether ? a.n / 2 : 0);
  } else {
    const int64_t n = tile * kN + i;
    return n < a.n ? n : -1;
  }
}

}  // namespace switchyard::kernels::cuda
