// q = rope(norm_q(Wq norm(x) + bq)); k likewise and v into the KV pool.
//
// One row without q and k norms: one product that norms, rotates and stores by itself; of quantized
// weights also few rows, normed in front. Else norm, product to float, and a last kernel with a
// warp a head: norm of the head, rotation, store.

#include <algorithm>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/kv_pages.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kWarps = 8;

__device__ inline float HeadFactor(const AttentionInputArgs& a, const float* head) {
  float squares = 0;
  for (int i = threadIdx.x % kWarp; i < a.head_dim; i += kWarp) {
    squares = fmaf(head[i], head[i], squares);
  }
  return rsqrtf(WarpSum(squares) / static_cast<float>(a.head_dim) + a.eps);
}

// heads: [rows][(Hq + 2 Hkv)][D] of the rows from `first_row` on.
__global__ __launch_bounds__(kWarps* kWarp) void StoreHeads(const AttentionInputArgs a,
                                                            int32_t first_row, const float* heads) {
  GridTrigger();
  GridWait();
  const int32_t head = blockIdx.y * kWarps + threadIdx.x / kWarp;
  const int32_t row = first_row + blockIdx.x, all = a.q_heads + 2 * a.kv_heads;
  const int32_t slot = a.rows.slot[row], position = a.rows.position[row];
  if (head >= all || slot < 0) return;
  heads += (int64_t{blockIdx.x} * all + head) * a.head_dim;
  const int32_t kv_head = head - a.q_heads;
  const bool value = kv_head >= a.kv_heads;
  Bf16* out = kv_head < 0 ? static_cast<Bf16*>(a.q) + (int64_t{row} * a.q_heads + head) * a.head_dim
              : value
                  ? KvRow(a.kv, a.kv.value_offset, slot, position, kv_head - a.kv_heads, a.head_dim)
                  : KvRow(a.kv, a.kv.key_offset, slot, position, kv_head, a.head_dim);
  const float* norm = value ? nullptr : kv_head < 0 ? a.q_norm : a.k_norm;
  const float factor = norm != nullptr ? HeadFactor(a, heads) : 1.0f;
  const auto element = [&](int i) {
    return heads[i] * (norm != nullptr ? factor * norm[i] : 1.0f);
  };
  const int32_t half = value ? 0 : a.rope.dim / 2;
  for (int i = threadIdx.x % kWarp; i < half; i += kWarp) {
    const float first = element(i), second = element(i + half);
    float sine, cosine;
    RotationOf(a.rope, position, i, sine, cosine);
    out[i] = __float2bfloat16_rn(first * cosine - second * sine);
    out[i + half] = __float2bfloat16_rn(second * cosine + first * sine);
  }
  for (int i = 2 * half + threadIdx.x % kWarp; i < a.head_dim; i += kWarp) {
    out[i] = __float2bfloat16_rn(element(i));
  }
}

}  // namespace

OpError CudaOps::AttentionInput(const AttentionInputArgs& args, Scratch scratch, Stream stream) {
  if (args.kv.dtype != DType::kBF16) return {"a GPU keeps KV as bf16 only"};
  const LaunchContext context = Context(stream);
  const int64_t hidden = args.qkv.k;
  MatmulArgs a;
  a.x = static_cast<const Bf16*>(args.x);
  a.rows = args.rows.rows;
  SetWeights(a, args.qkv);
  a.bias = args.bias;
  const bool normed_heads = args.q_norm != nullptr || args.k_norm != nullptr;
  if (!normed_heads && args.norm != nullptr && TakesQkv(a) && args.head_dim % 2 == 0) {
    if (TakesNorm(a)) {
      a.norm = args.norm;
      a.eps = args.eps;
    } else {
      ScratchCutter cut(scratch);
      NormScratch s;
      s.Take(cut, args.rows.rows, hidden);
      if (!cut.ok()) return kScratchTooSmall;
      SWITCHYARD_RETURN_IF_OP_ERROR(NormRows(args.x, nullptr, args.norm, args.eps, args.rows.rows,
                                             hidden, s.normed, context));
      a.x = s.normed;
    }
    a.output = Output::kQkv;
    a.qkv = {args.rows,
             args.q_heads,
             args.kv_heads,
             args.head_dim,
             args.rope,
             args.kv,
             static_cast<Bf16*>(args.q)};
    return Product(a, context);
  }
  ScratchCutter cut(scratch);
  QkvScratch s;
  s.Take(cut, args.rows.rows, hidden, args.qkv.n);
  if (!cut.ok()) return kScratchTooSmall;
  a.x = s.normed;
  a.output = Output::kF32;
  a.out = s.heads;
  const unsigned heads = args.q_heads + 2 * args.kv_heads;
  for (int32_t first = 0; first < args.rows.rows; first += kRowChunk) {
    a.rows = std::min(kRowChunk, args.rows.rows - first);
    SWITCHYARD_RETURN_IF_OP_ERROR(NormRows(static_cast<const Bf16*>(args.x) + first * hidden,
                                           nullptr, args.norm, args.eps, a.rows, hidden, s.normed,
                                           context));
    SWITCHYARD_RETURN_IF_OP_ERROR(Product(a, context));
    SWITCHYARD_RETURN_IF_OP_ERROR(Launch(context, dim3(a.rows, (heads + kWarps - 1) / kWarps),
                                         kWarps * kWarp, 0, StoreHeads, args, first, s.heads));
  }
  return {};
}

}  // namespace switchyard::kernels::cuda
