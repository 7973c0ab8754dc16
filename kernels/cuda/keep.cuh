#pragma once

#include <cstdint>

namespace switchyard::kernels::cuda {

// Keeps a value in a register where the compiler would compute it anew for every use.
__device__ inline void Keep(uint32_t& v) { asm volatile("" : "+r"(v)); }
__device__ inline void Keep(int& v) { asm volatile("" : "+r"(v)); }
template <class T>
__device__ inline void Keep(const T*& v) {
  asm volatile("" : "+l"(v));
}
__device__ inline uint32_t Kept(uint32_t v) {
  Keep(v);
  return v;
}

}  // namespace switchyard::kernels::cuda
