#pragma once

// What every kernel shares: bf16 in and out of registers, reductions, waiting for the kernel
// before, and the three instructions of a tensor-core tile (copy, load, multiply).

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/ops.h"

namespace switchyard::kernels::cuda {

using Bf16 = __nv_bfloat16;

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Lets the next kernel's blocks start, as far as there is room, once all of ours have.
__device__ inline void GridTrigger() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
// Returns when the kernel before has ended and what it wrote is visible.
__device__ inline void GridWait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

__device__ inline float Low(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float High(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
__device__ inline uint32_t Pack(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// The eight products of two 16-byte pieces of bf16, added to `sum`.
__device__ inline float DotPiece(uint4 a, uint4 b, float sum) {
  sum = fmaf(Low(a.x), Low(b.x), sum);
  sum = fmaf(High(a.x), High(b.x), sum);
  sum = fmaf(Low(a.y), Low(b.y), sum);
  sum = fmaf(High(a.y), High(b.y), sum);
  sum = fmaf(Low(a.z), Low(b.z), sum);
  sum = fmaf(High(a.z), High(b.z), sum);
  sum = fmaf(Low(a.w), Low(b.w), sum);
  return fmaf(High(a.w), High(b.w), sum);
}

// Weights are read once: they go past the first-level cache.
__device__ inline uint4 LoadStream(const uint4* at) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(at));
  return v;
}

// Loads a word into the first-level cache; the value is nobody's.
__device__ inline void Touch(const void* at) {
  asm volatile("{ .reg .u32 unused; ld.global.u32 unused, [%0]; }" ::"l"(at));
}

__device__ inline float WarpSum(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAllLanes, x, offset);
  return x;
}

// The sum over a block of at most 1024 threads, in every thread. Two barriers.
__device__ inline float BlockSum(float x, float* shared32) {
  x = WarpSum(x);
  __syncthreads();
  if (threadIdx.x % kWarp == 0) shared32[threadIdx.x / kWarp] = x;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < static_cast<int>(blockDim.x) / kWarp; ++i) sum += shared32[i];
  return sum;
}

__device__ inline float LoadElement(const void* data, DType type, int64_t i) {
  if (type == DType::kF32) return static_cast<const float*>(data)[i];
  if (type == DType::kF16) return __half2float(static_cast<const __half*>(data)[i]);
  return __bfloat162float(static_cast<const Bf16*>(data)[i]);
}

__device__ inline float Activate(Activation activation, float gate, float up) {
  if (activation == Activation::kSilu) return gate / (1.0f + __expf(-gate)) * up;
  if (activation == Activation::kGeluTanh) {
    const float inner = 0.7978845608028654f * (gate + 0.044715f * gate * gate * gate);
    return 0.5f * gate * (1.0f + tanhf(inner)) * up;
  }
  // Not fminf and fmaxf, which turn NaN into a number: damaged weights are to be seen.
  gate = gate > 7.0f ? 7.0f : gate;
  up = up > 7.0f ? 7.0f : up < -7.0f ? -7.0f : up;
  return (up + 1.0f) * gate / (1.0f + __expf(-1.702f * gate));
}

// Asynchronous copy of 16 bytes to shared memory; zeros where not `valid`.
__device__ inline void CopyAsync(void* shared, const void* global, bool valid) {
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}
__device__ inline void CopyCommit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ inline void CopyWait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four 8x8 tiles; lane i gives the address of row i % 8 of tile i / 8.
__device__ inline void LoadTiles(uint32_t (&r)[4], const void* shared) {
  const uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from)
               : "memory");
}
__device__ inline void LoadTilesTransposed(uint32_t (&r)[4], const void* shared) {
  const uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from)
               : "memory");
}

// d[16][8] += a[16][16] b[16][8]. With g = lane / 4 and t = lane % 4, a lane holds of a: rows g and
// g + 8 at columns 2t, 2t + 1, then the same rows at columns 2t + 8, 2t + 9; of b: rows 2t, 2t + 1,
// then 2t + 8, 2t + 9 of column g; of d: columns 2t, 2t + 1 of row g, then of row g + 8.
__device__ inline void MultiplyTile(float (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                    uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
      "{%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

}  // namespace switchyard::kernels::cuda
