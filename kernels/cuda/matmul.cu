// The choice among the variants of a product, and the one that takes anything: a warp a result,
// element by element, for widths that 16-byte loads do not divide and for f32 and f16 weights.

#include "kernels/cuda/matmul_output.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostGemvWidth = 96 * 1024 / 2;  // x fits in a block's shared memory

__device__ float WarpDot(const MatmulArgs& a, const Bf16* x, int64_t weight_row) {
  float sum = 0;
  for (int64_t k = threadIdx.x % kWarp; k < a.k; k += kWarp) {
    sum = fmaf(__bfloat162float(x[k]), LoadElement(a.w, a.dtype, weight_row * a.k + k), sum);
  }
  return WarpSum(sum);
}

template <Output kOutput>
__global__ __launch_bounds__(kThreads) void Generic(const MatmulArgs a) {
  GridTrigger();
  GridWait();
  constexpr bool kGated = kOutput == Output::kGateUp;
  const int64_t width = kGated ? a.n / 2 : a.n;
  const int64_t n = int64_t{blockIdx.x} * (kThreads / kWarp) + threadIdx.x / kWarp;
  if (n >= width) return;
  for (int64_t r = blockIdx.y; r < a.rows; r += gridDim.y) {
    const int64_t expert = a.expert != nullptr ? a.expert[r] : 0;
    const Bf16* x = a.x + InputRow(a, r) * a.k;
    const float first = WarpDot(a, x, expert * a.n + n);
    const float up = kGated ? WarpDot(a, x, expert * a.n + width + n) : 0;
    if (threadIdx.x % kWarp != 0) continue;
    if constexpr (kGated) {
      StoreGateUp(a, expert, r, n, first, up);
    } else {
      StoreResult<kOutput>(a, expert, r, n, first);
    }
  }
}

template <Output kOutput>
OpError Run(const MatmulArgs& a, const LaunchContext& context) {
  const int64_t width = kOutput == Output::kGateUp ? a.n / 2 : a.n;
  const int64_t warps = kThreads / kWarp;
  const dim3 grid(static_cast<unsigned>((width + warps - 1) / warps),
                  a.rows < 4096 ? a.rows : 4096);
  return Launch(context, grid, kThreads, 0, Generic<kOutput>, a);
}

}  // namespace

OpError GenericMatmul(const MatmulArgs& a, const LaunchContext& context) {
  switch (a.output) {
    case Output::kBf16:
      return Run<Output::kBf16>(a, context);
    case Output::kF32:
      return Run<Output::kF32>(a, context);
    case Output::kGateUp:
      return Run<Output::kGateUp>(a, context);
    case Output::kQkv:
      break;
  }
  return {"no such output of a generic product"};
}

bool HasFastLayout(const MatmulArgs& a) {
  return a.dtype == DType::kBF16 && a.k > 0 && a.k % 8 == 0 &&
         reinterpret_cast<uintptr_t>(a.w) % 16 == 0 && reinterpret_cast<uintptr_t>(a.x) % 16 == 0;
}

bool TakesNorm(const MatmulArgs& a) {
  return HasFastLayout(a) && a.rows == 1 && a.expert == nullptr && a.k <= kMostGemvWidth;
}

OpError Matmul(const MatmulArgs& a, int gemv_warps, const LaunchContext& context) {
  if (a.rows == 0 || a.n == 0) return {};
  if (a.dtype != DType::kBF16 && a.dtype != DType::kF32 && a.dtype != DType::kF16) {
    return {"weights of this type have no CUDA kernel yet"};
  }
  if (!HasFastLayout(a)) return GenericMatmul(a, context);
  if (a.expert != nullptr) {
    if (a.tiles.entry != nullptr) return TiledMatmul(a, context);
    return a.k <= kMostGemvWidth ? GemvMatmul(a, gemv_warps, context) : GenericMatmul(a, context);
  }
  if (a.rows == 1 && a.k <= kMostGemvWidth) return GemvMatmul(a, gemv_warps, context);
  return a.rows <= kSkinnyRows ? SkinnyMatmul(a, context) : TiledMatmul(a, context);
}

}  // namespace switchyard::kernels::cuda
