// From the chosen variant of a product to its launch, and the variant that takes anything: a warp a
// result, element by element, for widths that 16-byte loads do not divide, groups that are no power
// of two, and f32 and f16 weights.

#include "kernels/cuda/load_weight.cuh"
#include "kernels/cuda/matmul_output.cuh"
#include "kernels/cuda/stream_plan.h"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kThreads = 256;

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
  return ForPlainOutput(a.output,
                        [&](auto output) { return Run<decltype(output)::value>(a, context); });
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

ProductShape ShapeOf(const MatmulArgs& a, const LaunchContext& context) {
  ProductShape s;
  s.dtype = a.dtype;
  s.group = a.group;
  s.n = a.n;
  s.k = a.k;
  s.batch = a.batch;
  s.rows = a.rows;
  s.experts = a.expert == nullptr        ? ExpertRows::kNone
              : a.tiles.entry == nullptr ? ExpertRows::kEach
                                         : ExpertRows::kGrouped;
  s.qkv = a.output == Output::kQkv;
  s.aligned = Aligned(a.w) && Aligned(a.x);
  s.norm = a.norm != nullptr;
  s.picks = a.x_row != nullptr || a.x_divide != 1;
  s.halves = a.halves;
  s.invariant = context.invariant;
  return s;
}

OpError StreamMatmul(const MatmulArgs& a, const LaunchContext& context) {
  switch (a.dtype) {
    case DType::kBF16:
      return StreamBf16Matmul(a, context);
    case DType::kF8E4M3:
      return StreamFp8Matmul(a, context);
    case DType::kMxfp4:
      return StreamMxfp4Matmul(a, context);
    case DType::kInt4:
      return a.group >= 128 ? StreamInt4Matmul(a, context) : StreamInt4SmallMatmul(a, context);
    default:
      return {"no streamed product of this type"};
  }
}

OpError QuantBatchMatmul(const MatmulArgs& a, const LaunchContext& context) {
  switch (a.dtype) {
    case DType::kF8E4M3:
      return QuantBatchFp8Matmul(a, context);
    case DType::kMxfp4:
      return QuantBatchMxfp4Matmul(a, context);
    case DType::kInt4:
      return a.group >= 128 ? QuantBatchInt4Matmul(a, context)
                            : QuantBatchInt4SmallMatmul(a, context);
    default:
      return {"no batched product of this type"};
  }
}

OpError QuantTileMatmul(const MatmulArgs& a, const LaunchContext& context) {
  switch (a.dtype) {
    case DType::kF8E4M3:
      return TiledFp8Matmul(a, context);
    case DType::kMxfp4:
      return TiledMxfp4Matmul(a, context);
    case DType::kInt4:
      return a.group >= 128 ? TiledInt4Matmul(a, context) : TiledInt4SmallMatmul(a, context);
    default:
      return {"no quantized tile of this type"};
  }
}

}  // namespace

bool Streams(const MatmulArgs& a, const LaunchContext& context) {
  const ProductVariant* v = ChooseProduct(context.capability, ShapeOf(a, context));
  return v != nullptr && v->kernel == ProductKernel::kStream;
}

bool SumsChosen(const MatmulArgs& a, const LaunchContext& context) {
  const Matrix w = {a.w, a.dtype, a.n, a.k, a.batch, a.scales, a.zeros, a.group};
  return Streams(a, context) && SumsEntries(w, a.rows, context.capability, context.multiprocessors);
}

bool TakesNorm(const MatmulArgs& a, const LaunchContext& context) {
  return NormsItself(context.capability, ShapeOf(a, context));
}

bool TakesHalves(const MatmulArgs& a, const LaunchContext& context) {
  const ProductVariant* v = ChooseProduct(context.capability, ShapeOf(a, context));
  return v != nullptr && v->halves;
}

bool TakesQkv(const MatmulArgs& a, const LaunchContext& context) {
  ProductShape shape = ShapeOf(a, context);
  shape.qkv = true;
  return ChooseProduct(context.capability, shape) != nullptr;
}

OpError Matmul(const MatmulArgs& a, const LaunchContext& context) {
  if (a.rows == 0 || a.n == 0) return {};
  SWITCHYARD_RETURN_IF_OP_ERROR(
      CheckWeights({a.w, a.dtype, a.n, a.k, a.batch, a.scales, a.zeros, a.group}));
  const ProductVariant* v = ChooseProduct(context.capability, ShapeOf(a, context));
  if (v == nullptr) {
    return context.capability < kLowestCapability
               ? kNoKernel
               : OpError{"no kernel norms or rotates so many rows by itself"};
  }
  switch (v->kernel) {
    case ProductKernel::kStream:
      return StreamMatmul(a, context);
    case ProductKernel::kBatch:
      return BatchMatmul(a, context);
    case ProductKernel::kQuantBatch:
      return QuantBatchMatmul(a, context);
    case ProductKernel::kTile:
      return TiledMatmul(a, context);
    case ProductKernel::kQuantTile:
      return QuantTileMatmul(a, context);
    case ProductKernel::kGeneric:
      return GenericMatmul(a, context);
  }
  return kNoKernel;
}

}  // namespace switchyard::kernels::cuda
