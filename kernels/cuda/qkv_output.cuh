#pragma once

// Where the results of a fused qkv product go: pairs of elements of a head, rotated, to q or to the
// KV pool.

#include "kernels/cuda/kv_pages.cuh"
#include "kernels/cuda/matmul_output.cuh"

namespace switchyard::kernels::cuda {

struct QkvPlace {
  int32_t head, first, second;  // elements of the head
  bool rotated;
};

// Element pairs of all heads in order: (i, i + dim / 2) in the rotated part, neighbours after it.
__device__ inline QkvPlace PlaceOfPair(const QkvOutput& q, int32_t pair) {
  const int32_t half = q.head_dim / 2;
  const int32_t head = pair / half, i = pair % half;
  const int32_t rotated = q.rope.dim / 2;
  const bool rotates = i < rotated && head < q.q_heads + q.kv_heads;
  if (i < rotated) return {head, i, i + rotated, rotates};
  const int32_t rest = q.rope.dim + 2 * (i - rotated);
  return {head, rest, rest + 1, false};
}

// Where a pair's results of one row go and how they turn, looked up while the weights are on their
// way.
struct QkvTarget {
  Bf16 *first, *second;
  float sine, cosine, first_bias, second_bias;
};

__device__ inline QkvTarget TargetOfPair(const MatmulArgs& a, int32_t pair, int32_t row) {
  const QkvOutput& q = a.qkv;
  const int32_t slot = q.rows.slot[row], position = q.rows.position[row];
  if (slot < 0) return {};
  const QkvPlace place = PlaceOfPair(q, pair);
  const int64_t n = int64_t{place.head} * q.head_dim;
  QkvTarget target = {nullptr, nullptr, 0, 1, 0, 0};
  if (place.rotated) RotationOf(q.rope, position, place.first, target.sine, target.cosine);
  Bf16* to = q.q + int64_t{row} * q.q_heads * q.head_dim + n;
  if (place.head >= q.q_heads) {
    const int32_t kv_head = place.head - q.q_heads;
    const bool value = kv_head >= q.kv_heads;
    to = KvRow(q.kv, value ? q.kv.value_offset : q.kv.key_offset, slot, position,
               value ? kv_head - q.kv_heads : kv_head, q.head_dim);
  }
  target.first = to + place.first;
  target.second = to + place.second;
  target.first_bias = Biased(a, 0, n + place.first, 0);
  target.second_bias = Biased(a, 0, n + place.second, 0);
  return target;
}

__device__ inline void StoreQkv(const QkvTarget& t, float first, float second) {
  if (t.first == nullptr) return;
  first += t.first_bias;
  second += t.second_bias;
  *t.first = __float2bfloat16_rn(first * t.cosine - second * t.sine);
  *t.second = __float2bfloat16_rn(second * t.cosine + first * t.sine);
}

}  // namespace switchyard::kernels::cuda
