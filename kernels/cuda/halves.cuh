#pragma once

// Products of e4m3 in f16, which holds each of its numbers.

#include "kernels/cuda/device.cuh"

namespace switchyard::kernels::cuda {

// As MultiplyTile, in f16.
__device__ inline void MultiplyHalfTile(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                        uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Two e4m3 of the lower or upper half of a word as f16; where there is no instruction for that,
// times 2^-8: the exponents' difference.
#if __CUDA_ARCH__ >= 890
constexpr float kFp8HalfFactor = 1.0f;
__device__ inline uint32_t HalvesOfFp8(uint32_t word, bool upper) {
  uint32_t d;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;"
      : "=r"(d)
      : "h"(static_cast<uint16_t>(upper ? word >> 16 : word)));
  return d;
}
#else
constexpr float kFp8HalfFactor = 256.0f;
__device__ inline uint32_t HalvesOfFp8(uint32_t word, bool upper) {
  const uint32_t spread = __byte_perm(word, 0, upper ? 0x3424 : 0x1404);
  return (spread >> 1 & 0x3f803f80u) | (spread & 0x80008000u);
}
#endif

}  // namespace switchyard::kernels::cuda
