// Attention for head sizes that have no tile: a warp for each row and query head, lanes over the
// elements of a head, one key after the other. Slow, and right for any size up to 1024.

#include "kernels/cuda/attention.h"
#include "kernels/cuda/kv_pages.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kWarps = 4;

__device__ inline float KvFloat(const Bf16* at) { return __bfloat162float(*at); }
__device__ inline float KvFloat(const uint8_t* at) { return Low(WidenFp8(*at).x); }

template <int kPieces, class Element>  // elements a lane
__global__ __launch_bounds__(kWarps* kWarp) void Generic(const AttentionArgs a) {
  GridTrigger();
  GridWait();
  const int lane = threadIdx.x % kWarp;
  const int32_t head = blockIdx.y * kWarps + threadIdx.x / kWarp;
  const int32_t row = blockIdx.x, dim = a.head_dim;
  if (head >= a.q_heads || a.rows.slot[row] < 0) return;
  const int64_t slot = a.rows.slot[row], at = (int64_t{row} * a.q_heads + head) * dim;
  const int32_t position = a.rows.position[row], kv_head = head / (a.q_heads / a.kv_heads);
  const Bf16* q = static_cast<const Bf16*>(a.q) + at;
  float query[kPieces], out[kPieces] = {};
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const int d = lane + i * kWarp;
    query[i] = d < dim ? __bfloat162float(q[d]) : 0;
  }
  float largest = a.sinks != nullptr ? a.sinks[head] : -INFINITY;
  float sum = a.sinks != nullptr ? 1 : 0;
  const int32_t low = a.window > 0 ? max(0, position - a.window + 1) : 0;
  for (int32_t p = low; p <= position; ++p) {
    const Element* key = KvRowOf<Element>(a.kv, a.kv.key_offset, slot, p, kv_head, dim);
    const Element* value = KvRowOf<Element>(a.kv, a.kv.value_offset, slot, p, kv_head, dim);
    float score = 0;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int d = lane + i * kWarp;
      if (d < dim) score = fmaf(query[i], KvFloat(key + d), score);
    }
    score = WarpSum(score) * a.scale;
    const float next = fmaxf(largest, score), shrink = expf(largest - next);
    const float weight = expf(score - next);
    largest = next;
    sum = sum * shrink + weight;
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      const int d = lane + i * kWarp;
      if (d < dim) out[i] = out[i] * shrink + weight * KvFloat(value + d);
    }
  }
#pragma unroll
  for (int i = 0; i < kPieces; ++i) {
    const int d = lane + i * kWarp;
    if (d < dim) static_cast<Bf16*>(a.out)[at + d] = __float2bfloat16_rn(out[i] / sum);
  }
}

template <class Element>
OpError Run(const AttentionArgs& args, const LaunchContext& context) {
  const dim3 grid(args.rows.rows, (args.q_heads + kWarps - 1) / kWarps);
  const int threads = kWarps * kWarp;
  if (args.head_dim <= 128) return Launch(context, grid, threads, 0, Generic<4, Element>, args);
  if (args.head_dim <= 1024) return Launch(context, grid, threads, 0, Generic<32, Element>, args);
  return {"heads wider than 1024 have no CUDA kernel"};
}

}  // namespace

OpError GenericAttention(const AttentionArgs& args, const LaunchContext& context) {
  return args.kv.dtype == DType::kF8E4M3 ? Run<uint8_t>(args, context) : Run<Bf16>(args, context);
}

}  // namespace switchyard::kernels::cuda
