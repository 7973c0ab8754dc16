// RMS norm of rows (Zhang & Sennrich 2019): on its own in front of products of several rows, as f16
// for one that multiplies in it, and added to the residual for PostNormAdd. A block a row. Rows of
// up to 8192 in 16-byte pieces are read once and kept in registers; others take two passes, the
// second from the cache. Bound by memory, for a few rows by latency.

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// What becomes of a normed row: bf16; bf16, added to what is there; f16 times kHalfRows.
enum class To { kBf16, kSum, kHalves };

__device__ inline __half HalfOfRow(float v) {
  constexpr float kMost = 65504;
  v *= kHalfRows;
  return __float2half_rn(v > kMost ? kMost : v < -kMost ? -kMost : v);
}

template <To kTo>
__global__ __launch_bounds__(kThreads) void Norm(const Bf16* x, const int32_t* index,
                                                 const float* norm, float eps, int64_t width,
                                                 Bf16* out) {
  __shared__ float shared[kWarp];
  GridTrigger();
  GridWait();
  const int64_t row = blockIdx.x;
  x += (index != nullptr ? index[row] : row) * width;
  out += row * width;
  float squares = 0;
  for (int64_t i = threadIdx.x; i < width; i += kThreads) {
    const float v = __bfloat162float(x[i]);
    squares = fmaf(v, v, squares);
  }
  const float factor = rsqrtf(BlockSum(squares, shared) / static_cast<float>(width) + eps);
  for (int64_t i = threadIdx.x; i < width; i += kThreads) {
    float v = __bfloat162float(x[i]) * factor;
    if (norm != nullptr) v *= norm[i];
    if (kTo == To::kSum) v += __bfloat162float(out[i]);
    if constexpr (kTo == To::kHalves) {
      reinterpret_cast<__half*>(out)[i] = HalfOfRow(v);
    } else {
      out[i] = __float2bfloat16_rn(v);
    }
  }
}

// kPieces: 16-byte pieces a thread.
template <To kTo, int kPieces>
__global__ __launch_bounds__(kThreads) void NormPieces(const Bf16* x, const int32_t* index,
                                                       const float* norm, float eps, int width,
                                                       Bf16* out) {
  __shared__ float shared[kWarp];
  GridTrigger();
  const int pieces = width / 8;
  float4 weight[kPieces][2];  // of no kernel's making: read before the one in front has ended
#pragma unroll
  for (int j = 0; j < kPieces; ++j) {
    const int i = threadIdx.x + j * kThreads;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      weight[j][h] = {1, 1, 1, 1};
      if (norm != nullptr && i < pieces) {
        weight[j][h] = reinterpret_cast<const float4*>(norm)[2 * i + h];
      }
    }
  }
  GridWait();
  const int64_t row = blockIdx.x;
  const uint4* from =
      reinterpret_cast<const uint4*>(x + (index != nullptr ? index[row] : row) * width);
  uint4* to = reinterpret_cast<uint4*>(out + row * width);
  uint4 v[kPieces];
  float squares = 0;
#pragma unroll
  for (int j = 0; j < kPieces; ++j) {
    const int i = threadIdx.x + j * kThreads;
    v[j] = i < pieces ? from[i] : make_uint4(0, 0, 0, 0);
    squares = DotPiece(v[j], v[j], squares);
  }
  const float factor = rsqrtf(BlockSum(squares, shared) / static_cast<float>(width) + eps);
#pragma unroll
  for (int j = 0; j < kPieces; ++j) {
    const int i = threadIdx.x + j * kThreads;
    if (i >= pieces) continue;
    const uint4 there = kTo == To::kSum ? to[i] : make_uint4(0, 0, 0, 0);
    const auto two = [&](uint32_t pair, float first, float second, uint32_t before) {
      first *= Low(pair) * factor, second *= High(pair) * factor;
      if constexpr (kTo == To::kHalves) {
        const __half2 halves = __halves2half2(HalfOfRow(first), HalfOfRow(second));
        return *reinterpret_cast<const uint32_t*>(&halves);
      } else {
        return Pack(first + Low(before), second + High(before));
      }
    };
    const float4 low = weight[j][0], high = weight[j][1];
    to[i] = {two(v[j].x, low.x, low.y, there.x), two(v[j].y, low.z, low.w, there.y),
             two(v[j].z, high.x, high.y, there.z), two(v[j].w, high.z, high.w, there.w)};
  }
}

template <To kTo>
OpError Run(const Bf16* x, const int32_t* index, const float* norm, float eps, int32_t rows,
            int64_t width, Bf16* out, const LaunchContext& context) {
  const bool pieces = width % 8 == 0 && Aligned(x) && Aligned(norm) && Aligned(out);
  const int small = static_cast<int>(width);
  const auto run = [&](auto kernel) {
    return Launch(context, rows, kThreads, 0, kernel, x, index, norm, eps, small, out);
  };
  if (pieces && width <= 8 * kThreads) return run(NormPieces<kTo, 1>);
  if (pieces && width <= 16 * kThreads) return run(NormPieces<kTo, 2>);
  if (pieces && width <= 32 * kThreads) return run(NormPieces<kTo, 4>);
  return Launch(context, rows, kThreads, 0, Norm<kTo>, x, index, norm, eps, width, out);
}

}  // namespace

OpError NormRows(const void* x, const int32_t* index, const float* norm, float eps, int32_t rows,
                 int64_t width, void* out, const LaunchContext& context) {
  return Run<To::kBf16>(static_cast<const Bf16*>(x), index, norm, eps, rows, width,
                        static_cast<Bf16*>(out), context);
}

OpError NormForProduct(MatmulArgs& a, const void* x, const int32_t* index, const float* norm,
                       float eps, Bf16* normed, const LaunchContext& context) {
  a.x = normed;
  a.norm = nullptr;
  a.halves = false;
  a.halves = TakesHalves(a, context);
  const auto run = a.halves ? Run<To::kHalves> : Run<To::kBf16>;
  return run(static_cast<const Bf16*>(x), index, norm, eps, a.rows, a.k, normed, context);
}

OpError CudaOps::PostNormAdd(const PostNormAddArgs& args, Scratch scratch, Stream stream) {
  return Run<To::kSum>(static_cast<const Bf16*>(args.x), nullptr, args.norm, args.eps, args.rows,
                       args.width, static_cast<Bf16*>(args.residual), Context(stream));
}

}  // namespace switchyard::kernels::cuda
