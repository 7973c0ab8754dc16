#pragma once

// Sixteen weight rows as the left operand of a tensor-core product: which they are.

#include "kernels/cuda/qkv_output.cuh"

namespace switchyard::kernels::cuda {

// The two weight rows of lane group g in a tile; -1: none.
struct TileRows {
  int32_t low, high;
};
template <Output kOutput>
__device__ inline TileRows RowsOfTile(const MatmulArgs& a, int32_t tile, int32_t g) {
  const int32_t n = static_cast<int32_t>(a.n);
  if constexpr (kOutput == Output::kGateUp || kOutput == Output::kQkv) {
    const int32_t pair = tile * 8 + g;
    if (pair >= n / 2) return {-1, -1};
    if constexpr (kOutput == Output::kGateUp) return {pair, n / 2 + pair};
    const QkvPlace place = PlaceOfPair(a.qkv, pair);
    return {place.head * a.qkv.head_dim + place.first, place.head * a.qkv.head_dim + place.second};
  }
  const int32_t low = tile * 16 + g;
  return {low < n ? low : -1, low + 8 < n ? low + 8 : -1};
}

}  // namespace switchyard::kernels::cuda
