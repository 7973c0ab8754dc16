#pragma once

// Where a position's keys and values lie in the paged pool, how a head is rotated, and fp8 numbers.

#include <cuda_fp8.h>

#include "kernels/cuda/device.cuh"

namespace switchyard::kernels::cuda {

// Head `head`'s keys (or values, by `offset`) at `position` of `slot`, as T: Bf16 or uint8_t
// (e4m3).
template <class T>
__device__ inline T* KvRowOf(const KvView& kv, int64_t offset, int64_t slot, int32_t position,
                             int32_t head, int32_t head_dim) {
  const int64_t block = kv.table[slot * kv.table_stride + position / kv.block_tokens];
  const int64_t row = int64_t{head} * kv.block_tokens + position % kv.block_tokens;
  return reinterpret_cast<T*>(static_cast<char*>(kv.base) + block * kv.block_bytes + offset) +
         row * head_dim;
}
__device__ inline Bf16* KvRow(const KvView& kv, int64_t offset, int64_t slot, int32_t position,
                              int32_t head, int32_t head_dim) {
  return KvRowOf<Bf16>(kv, offset, slot, position, head, head_dim);
}

__device__ inline void StoreElement(Bf16* at, float value) { *at = __float2bfloat16_rn(value); }
// Rounded to nearest; beyond 448 it stays 448. NaN is 0x7f.
__device__ inline void StoreElement(uint8_t* at, float value) {
  *at = __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
}

// Four e4m3 numbers as bf16, exactly: their seven bits of exponent and fraction, put where bf16 has
// them, are the number times 2^-120, subnormal ones too. NaN (0x7f, 0xff), which would be 480, is
// NaN, as damaged weights are to be seen: that alone is no finite bf16 times 1.125 * 2^119, and
// infinity times zero is NaN. Two multiplications, which are not what widening waits for: integers
// are, and copies through shared memory.
__device__ inline uint2 WidenFp8(uint32_t four) {
  const auto two = [](uint32_t high_bytes) {
    const auto pair = [](uint32_t bits) { return *reinterpret_cast<const __nv_bfloat162*>(&bits); };
    const uint32_t bits = (high_bytes & 0x7f007f00u) >> 4 | (high_bytes & 0x80008000u);
    const __nv_bfloat162 number = __hmul2(pair(bits), pair(0x7b807b80u));  // 2^120
    const __nv_bfloat162 large = __hmul2(number, pair(0x7b107b10u));       // 1.125 * 2^119
    const __nv_bfloat162 wide = __hfma2(large, pair(0), number);
    return *reinterpret_cast<const uint32_t*>(&wide);
  };
  return {two(__byte_perm(four, 0, 0x1404)), two(__byte_perm(four, 0, 0x3424))};
}

// Angles in float as transformers computes them; sine and cosine reduced exactly.
__device__ inline void RotationOf(const Rope& rope, int32_t position, int32_t pair, float& sine,
                                  float& cosine) {
  sincosf(static_cast<float>(position) * rope.inv_freq[pair], &sine, &cosine);
  sine *= rope.scale;
  cosine *= rope.scale;
}

}  // namespace switchyard::kernels::cuda
