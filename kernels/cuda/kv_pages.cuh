#pragma once

// Where a position's keys and values lie in the paged pool, and how a head is rotated.

#include "kernels/cuda/device.cuh"

namespace switchyard::kernels::cuda {

// Head `head`'s keys (or values, by `offset`) at `position` of `slot`.
__device__ inline Bf16* KvRow(const KvView& kv, int64_t offset, int64_t slot, int32_t position,
                              int32_t head, int32_t head_dim) {
  const int64_t block = kv.table[slot * kv.table_stride + position / kv.block_tokens];
  const int64_t row = int64_t{head} * kv.block_tokens + position % kv.block_tokens;
  return reinterpret_cast<Bf16*>(static_cast<char*>(kv.base) + block * kv.block_bytes + offset) +
         row * head_dim;
}

// Angles in float as transformers computes them; sine and cosine reduced exactly.
__device__ inline void RotationOf(const Rope& rope, int32_t position, int32_t pair, float& sine,
                                  float& cosine) {
  sincosf(static_cast<float>(position) * rope.inv_freq[pair], &sine, &cosine);
  sine *= rope.scale;
  cosine *= rope.scale;
}

}  // namespace switchyard::kernels::cuda
