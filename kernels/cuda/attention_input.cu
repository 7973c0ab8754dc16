// q = rope(norm_q(Wq norm(x) + bq)); k likewise and v into the KV pool.
//
// Without q and k norms and with bf16 KV: of few rows one product that norms, rotates and stores by
// itself; of quantized weights of a batch too, normed in front. Else norm (of few rows by the
// product itself), product to float, and a last kernel: a block takes sixteen heads of a row (of
// few rows eight), a warp one after the other: norm of the head, rotation by sines and cosines that
// the block computes once, store. Where a row's KV goes and its sines are found while the product
// runs.

#include <algorithm>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/kv_pages.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kWarps = 8, kBlockHeads = 16, kFewRowsHeads = 8;
constexpr int32_t kFewRows = 16;

__device__ inline float HeadFactor(const AttentionInputArgs& a, const float* head) {
  float squares = 0;
  for (int i = threadIdx.x % kWarp; i < a.head_dim; i += kWarp) {
    squares = fmaf(head[i], head[i], squares);
  }
  return rsqrtf(WarpSum(squares) / static_cast<float>(a.head_dim) + a.eps);
}

// One head of `row`, normed and rotated. turn: [dim / 2] of (sine, cosine), or null.
template <class Element>
__device__ inline void StoreHead(const AttentionInputArgs& a, const float* head, const float* norm,
                                 const float2* turn, Element* out) {
  const float factor = norm != nullptr ? HeadFactor(a, head) : 1.0f;
  const auto element = [&](int i) { return head[i] * (norm != nullptr ? factor * norm[i] : 1.0f); };
  const int32_t half = turn != nullptr ? a.rope.dim / 2 : 0;
  for (int i = threadIdx.x % kWarp; i < half; i += kWarp) {
    const float first = element(i), second = element(i + half);
    const float sine = turn[i].x, cosine = turn[i].y;
    StoreElement(out + i, first * cosine - second * sine);
    StoreElement(out + i + half, second * cosine + first * sine);
  }
  for (int i = 2 * half + threadIdx.x % kWarp; i < a.head_dim; i += kWarp) {
    StoreElement(out + i, element(i));
  }
}

// heads: [rows][(Hq + 2 Hkv)][D] of the rows from `first_row` on. Shared memory: [dim / 2].
template <class Element>
__global__ __launch_bounds__(kWarps* kWarp) void StoreHeads(const AttentionInputArgs a,
                                                            int32_t first_row, int32_t block_heads,
                                                            const float* heads) {
  extern __shared__ float2 turn[];
  GridTrigger();
  const int32_t row = first_row + blockIdx.x, all = a.q_heads + 2 * a.kv_heads;
  const int32_t slot = a.rows.slot[row], position = a.rows.position[row];
  if (slot < 0) return GridWait();
  if (threadIdx.x == 0) {
    Touch(a.kv.table + int64_t{slot} * a.kv.table_stride + position / a.kv.block_tokens);
  }
  for (const float* norm : {a.q_norm, a.k_norm}) {
    const int i = threadIdx.x * 32;  // a line of the cache each
    if (norm != nullptr && i < a.head_dim) Touch(norm + i);
  }
  for (int i = threadIdx.x; i < a.rope.dim / 2; i += kWarps * kWarp) {
    RotationOf(a.rope, position, i, turn[i].x, turn[i].y);
  }
  __syncthreads();
  GridWait();
  const int32_t first = static_cast<int32_t>(blockIdx.y) * block_heads;
  const int32_t end = min(all, first + block_heads);
  for (int32_t head = first + threadIdx.x / kWarp; head < end; head += kWarps) {
    const float* from = heads + (int64_t{blockIdx.x} * all + head) * a.head_dim;
    const int32_t kv_head = head - a.q_heads;
    if (kv_head < 0) {
      StoreHead(a, from, a.q_norm, turn,
                static_cast<Bf16*>(a.q) + (int64_t{row} * a.q_heads + head) * a.head_dim);
    } else if (kv_head < a.kv_heads) {
      StoreHead(a, from, a.k_norm, turn,
                KvRowOf<Element>(a.kv, a.kv.key_offset, slot, position, kv_head, a.head_dim));
    } else {
      StoreHead(a, from, nullptr, nullptr,
                KvRowOf<Element>(a.kv, a.kv.value_offset, slot, position, kv_head - a.kv_heads,
                                 a.head_dim));
    }
  }
}

OpError StoreAll(const AttentionInputArgs& args, int32_t first, int32_t rows, const float* heads,
                 const LaunchContext& context) {
  const unsigned all = args.q_heads + 2 * args.kv_heads;
  const int32_t block_heads = rows <= kFewRows ? kFewRowsHeads : kBlockHeads;
  const dim3 grid(rows, (all + block_heads - 1) / block_heads);
  const size_t shared = args.rope.dim / 2 * sizeof(float2);
  const auto kernel = args.kv.dtype == DType::kF8E4M3 ? StoreHeads<uint8_t> : StoreHeads<Bf16>;
  return Launch(context, grid, kWarps * kWarp, shared, kernel, args, first, block_heads, heads);
}

}  // namespace

OpError CudaOps::AttentionInput(const AttentionInputArgs& args, Scratch scratch, Stream stream) {
  if (args.kv.dtype != DType::kBF16 && args.kv.dtype != DType::kF8E4M3) return kNoSuchKv;
  const LaunchContext context = Context(stream);
  const int64_t hidden = args.qkv.k;
  MatmulArgs a;
  a.x = static_cast<const Bf16*>(args.x);
  a.rows = args.rows.rows;
  SetWeights(a, args.qkv);
  a.bias = args.bias;
  const bool normed_heads = args.q_norm != nullptr || args.k_norm != nullptr;
  if (!normed_heads && args.norm != nullptr && TakesQkv(a, context) && args.head_dim % 2 == 0 &&
      args.kv.dtype == DType::kBF16) {
    a.output = Output::kQkv;
    ScratchCutter cut(scratch);
    if (TakesNorm(a, context)) {
      a.norm = args.norm;
      a.eps = args.eps;
    } else {
      NormScratch s;
      s.Take(cut, args.rows.rows, hidden);
      if (!cut.ok()) return kScratchTooSmall;
      SWITCHYARD_RETURN_IF_OP_ERROR(
          NormForProduct(a, args.x, nullptr, args.norm, args.eps, s.normed, context));
    }
    a.workspace = cut.Rest();
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
  a.output = Output::kF32;
  a.out = s.heads;
  a.workspace = cut.Rest();
  const int32_t chunk = RowsAtOnce(args.rows.rows, args.qkv, kDenseChunk);
  for (int32_t first = 0; first < args.rows.rows; first += chunk) {
    a.rows = std::min(chunk, args.rows.rows - first);
    const Bf16* x = static_cast<const Bf16*>(args.x) + first * hidden;
    if (args.norm != nullptr && TakesNorm(a, context)) {
      a.x = x;
      a.norm = args.norm;
      a.eps = args.eps;
    } else {
      SWITCHYARD_RETURN_IF_OP_ERROR(
          NormForProduct(a, x, nullptr, args.norm, args.eps, s.normed, context));
    }
    SWITCHYARD_RETURN_IF_OP_ERROR(Product(a, context));
    SWITCHYARD_RETURN_IF_OP_ERROR(StoreAll(args, first, a.rows, s.heads, context));
  }
  return {};
}

}  // namespace switchyard::kernels::cuda
