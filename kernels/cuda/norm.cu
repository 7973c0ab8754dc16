// RMS norm of rows (Zhang & Sennrich 2019): on its own in front of products of several rows, and
// added to the residual for PostNormAdd. A block a row, two passes, the second from the cache.
// Bound by memory; a small part of any step.

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kThreads = 256;

template <bool kAdd>
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
    if (kAdd) v += __bfloat162float(out[i]);
    out[i] = __float2bfloat16_rn(v);
  }
}

}  // namespace

OpError NormRows(const void* x, const int32_t* index, const float* norm, float eps, int32_t rows,
                 int64_t width, void* out, const LaunchContext& context) {
  return Launch(context, rows, kThreads, 0, Norm<false>, static_cast<const Bf16*>(x), index, norm,
                eps, width, static_cast<Bf16*>(out));
}

OpError CudaOps::PostNormAdd(const PostNormAddArgs& args, Scratch scratch, Stream stream) {
  return Launch(Context(stream), args.rows, kThreads, 0, Norm<true>,
                static_cast<const Bf16*>(args.x), nullptr, args.norm, args.eps, args.width,
                static_cast<Bf16*>(args.residual));
}

}  // namespace switchyard::kernels::cuda
