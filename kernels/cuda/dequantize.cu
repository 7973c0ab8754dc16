// Rows of an fp8 or int4 matrix as bf16, for cuBLASLt. A thread takes eight neighbouring columns of
// four rows, so that a warp reads and writes whole lines; a scaled weight is rounded as the tiles
// of quant_tile.cuh round it. Bound by memory.

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/quant_tile.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kThreads = 256, kRowsEach = 4, kColumns = 8;

// The eight columns of a lane of quant_tile.cuh as its first ones.
__device__ inline uint4 LoadColumns(const Fp8Tile&, const MatmulArgs& a, int64_t row, int64_t k) {
  const uint2 v = *reinterpret_cast<const uint2*>(static_cast<const char*>(a.w) + row * a.k + k);
  return {v.x, v.y, 0, 0};
}
__device__ inline uint4 LoadColumns(const Int4Tile<1>&, const MatmulArgs& a, int64_t row,
                                    int64_t k) {
  return {static_cast<const uint32_t*>(a.w)[(row * a.k + k) / kColumns], 0, 0, 0};
}

template <class Tile>
__global__ __launch_bounds__(kThreads) void DequantizeRows(const MatmulArgs a, int64_t first,
                                                           int64_t rows, Bf16* out) {
  GridTrigger();
  GridWait();
  const int64_t k = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kColumns;
  const int64_t begin = int64_t{blockIdx.y} * kRowsEach;
  if (k >= a.k) return;
  uint4 v[kRowsEach];
  typename Tile::Raw scale[kRowsEach];
#pragma unroll
  for (int i = 0; i < kRowsEach; ++i) {
    const int64_t row = first + min(begin + i, rows - 1);
    v[i] = LoadColumns(Tile(), a, row, k);
    scale[i] = Tile::Fetch(a, 0, row, k);
  }
#pragma unroll
  for (int i = 0; i < kRowsEach; ++i) {
    uint32_t pair[4];
    Tile::Unpack(v[i], 0, Tile::Make(scale[i]), pair);
    if (begin + i >= rows) return;
    *reinterpret_cast<uint4*>(out + (begin + i) * a.k + k) = {pair[0], pair[1], pair[2], pair[3]};
  }
}

}  // namespace

bool CanDequantize(const MatmulArgs& a) {
  return (a.dtype == DType::kF8E4M3 || a.dtype == DType::kInt4) && a.k > 0 && a.k % kColumns == 0 &&
         (a.group & (a.group - 1)) == 0 && Aligned(a.w);
}

OpError Dequantize(const MatmulArgs& a, int64_t first, int64_t rows, Bf16* out,
                   const LaunchContext& context) {
  const dim3 grid(static_cast<unsigned>((a.k / kColumns + kThreads - 1) / kThreads),
                  static_cast<unsigned>((rows + kRowsEach - 1) / kRowsEach));
  const auto kernel =
      a.dtype == DType::kInt4 ? DequantizeRows<Int4Tile<1>> : DequantizeRows<Fp8Tile>;
  return Launch(context, grid, kThreads, 0, kernel, a, first, rows, out);
}

}  // namespace switchyard::kernels::cuda
