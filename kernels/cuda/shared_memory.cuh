#pragma once

// Shared memory by its own 32-bit addresses: one register each, and offsets for nothing.

#include <cstdint>

namespace switchyard::kernels::cuda {

__device__ inline uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

__device__ inline uint4 LoadPiece(uint32_t at) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(at)
               : "memory");
  return v;
}
// Zeros where it is not wanted.
__device__ inline uint4 LoadPieceIf(bool wanted, uint32_t at) {
  uint4 v = make_uint4(0, 0, 0, 0);
  asm volatile("{ .reg .pred p; setp.ne.u32 p, %5, 0; @p ld.shared.v4.u32 {%0,%1,%2,%3}, [%4]; }"
               : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
               : "r"(at), "r"(static_cast<uint32_t>(wanted))
               : "memory");
  return v;
}
template <int kBytes>
__device__ inline uint32_t LoadWord(uint32_t at) {
  uint32_t v;
  if constexpr (kBytes == 4) {
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(v) : "r"(at) : "memory");
  } else if constexpr (kBytes == 2) {
    asm volatile("{ .reg .u16 h; ld.shared.u16 h, [%1]; cvt.u32.u16 %0, h; }"
                 : "=r"(v)
                 : "r"(at)
                 : "memory");
  } else {
    asm volatile("{ .reg .u16 h; ld.shared.u8 h, [%1]; cvt.u32.u16 %0, h; }"
                 : "=r"(v)
                 : "r"(at)
                 : "memory");
  }
  return v;
}
struct TwoWords {
  uint32_t first, second;
};
__device__ inline TwoWords LoadTwoWords(uint32_t at) {
  TwoWords v;
  asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];"
               : "=r"(v.first), "=r"(v.second)
               : "r"(at)
               : "memory");
  return v;
}
__device__ inline void StorePiece(uint32_t at, const uint4& v) {
  asm volatile("st.shared.v4.u32 [%0], {%1,%2,%3,%4};" ::"r"(at), "r"(v.x), "r"(v.y), "r"(v.z),
               "r"(v.w)
               : "memory");
}

}  // namespace switchyard::kernels::cuda
