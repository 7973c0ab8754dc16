// The choice among the variants of a product, and the one that takes anything: a warp a result,
// element by element, for widths that 16-byte loads do not divide and for f32 and f16 weights.

#include <algorithm>

#include "kernels/cuda/load_weight.cuh"
#include "kernels/cuda/matmul_output.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostGemvWidth = 96 * 1024 / 2;  // x fits in a block's shared memory
constexpr int64_t kMostNormedWidth = 16384;        // beside the ring, within 99 KiB

__device__ float WarpDot(const MatmulArgs& a, const Bf16* x, int64_t expert, int64_t row) {
  const Matrix w = {a.w, a.dtype, a.n, a.k, 1, a.scales, a.zeros, a.group};
  float sum = 0;
  for (int64_t k = threadIdx.x % kWarp; k < a.k; k += kWarp) {
    sum = fmaf(__bfloat162float(x[k]), LoadWeight(w, expert, row, k), sum);
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
    const float first = WarpDot(a, x, expert, n);
    const float up = kGated ? WarpDot(a, x, expert, width + n) : 0;
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

void SetWeights(MatmulArgs& a, const Matrix& w) {
  a.w = w.data;
  a.dtype = w.dtype;
  a.n = w.n;
  a.k = w.k;
  a.batch = w.batch;
  a.scales = w.scales;
  a.zeros = w.zeros;
  a.group = w.group;
  // Of fp8 without groups a shift that makes every column the first.
  a.group_shift = w.dtype == DType::kF8E4M3 && w.group == 0 ? 31 : 0;
  for (int64_t group = w.group; group > 1; group /= 2) ++a.group_shift;
}

OpError CheckWeights(const Matrix& w) {
  switch (w.dtype) {
    case DType::kF32:
    case DType::kBF16:
    case DType::kF16:
      return {};
    case DType::kF8E4M3:
      if (w.group != 0 && w.group != 128) return {"fp8 scales of a group that is not 128"};
      break;
    case DType::kInt4:
      if (w.group < 32 || w.group % 32 != 0 || w.k % w.group != 0) {
        return {"int4 groups are no multiple of 32, or do not divide the width"};
      }
      break;
    case DType::kMxfp4:
      if (w.group != 32 || w.k % 32 != 0) return {"mxfp4 groups are not of 32"};
      break;
  }
  return {w.scales != nullptr ? nullptr : "quantized weights without scales"};
}

namespace {

bool Aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// Quantized weights that the streamed product takes: 16-byte pieces, shifts for groups, indices of
// 32 bits.
bool StreamsQuantized(const MatmulArgs& a) {
  if (IsPlain(a.dtype) || !Aligned(a.w) || !Aligned(a.x) || a.k == 0) return false;
  if (a.n * a.k * a.batch >= int64_t{1} << 36 || a.n >= int64_t{1} << 31) return false;
  if (a.dtype == DType::kF8E4M3) return a.k % 16 == 0;
  return (a.group & (a.group - 1)) == 0;
}

OpError QuantizedMatmul(MatmulArgs a, const LaunchContext& context) {
  if (!StreamsQuantized(a)) return GenericMatmul(a, context);
  const auto stream = a.dtype == DType::kF8E4M3  ? StreamFp8Matmul
                      : a.dtype == DType::kMxfp4 ? StreamMxfp4Matmul
                      : a.group >= 128           ? StreamInt4Matmul
                                                 : StreamInt4SmallMatmul;
  if (a.rows <= kStreamRows || a.expert != nullptr) return stream(a, context);
  const int64_t width = (a.output == Output::kGateUp ? a.n / 2 : a.n) *
                        (a.output == Output::kF32 ? sizeof(float) : sizeof(Bf16));
  const MatmulArgs all = a;
  for (int32_t first = 0; first < all.rows; first += kStreamRows) {
    a.rows = std::min(kStreamRows, all.rows - first);
    a.x = all.x + first * a.k;
    a.out = static_cast<char*>(all.out) + first * width;
    SWITCHYARD_RETURN_IF_OP_ERROR(stream(a, context));
  }
  return {};
}

}  // namespace

bool HasFastLayout(const MatmulArgs& a) {
  return a.dtype == DType::kBF16 && a.k > 0 && a.k % 8 == 0 && Aligned(a.w) && Aligned(a.x);
}

bool TakesNorm(const MatmulArgs& a) {
  if (a.rows != 1 || a.expert != nullptr) return false;
  if (StreamsQuantized(a)) return a.k <= kMostNormedWidth;
  return HasFastLayout(a) && a.k <= kMostGemvWidth;
}

bool TakesQkv(const MatmulArgs& a) {
  return TakesNorm(a) || (StreamsQuantized(a) && a.rows <= kStreamRows);
}

OpError Matmul(const MatmulArgs& a, int gemv_warps, const LaunchContext& context) {
  if (a.rows == 0 || a.n == 0) return {};
  SWITCHYARD_RETURN_IF_OP_ERROR(
      CheckWeights({a.w, a.dtype, a.n, a.k, a.batch, a.scales, a.zeros, a.group}));
  if (!IsPlain(a.dtype)) return QuantizedMatmul(a, context);
  if (!HasFastLayout(a)) return GenericMatmul(a, context);
  if (gemv_warps == 0 &&
      (a.rows <= kStreamRows || (a.expert != nullptr && a.tiles.entry == nullptr))) {
    return StreamBf16Matmul(a, context);
  }
  if (a.expert != nullptr) {
    if (a.tiles.entry != nullptr) return TiledMatmul(a, context);
    return a.k <= kMostGemvWidth ? GemvMatmul(a, gemv_warps, context) : GenericMatmul(a, context);
  }
  if (a.rows == 1 && a.k <= kMostGemvWidth) return GemvMatmul(a, gemv_warps, context);
  return a.rows <= kBatchRows ? BatchMatmul(a, 0, context) : TiledMatmul(a, context);
}

}  // namespace switchyard::kernels::cuda
