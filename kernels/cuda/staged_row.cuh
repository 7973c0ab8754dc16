#pragma once

// One row of x, normed on the way, in shared memory: what a product of one row multiplies by.

#include "kernels/cuda/copy_barrier.cuh"
#include "kernels/cuda/device.cuh"

namespace switchyard::kernels::cuda {

// Loads a word into the first-level cache; the value is nobody's.
__device__ inline void Touch(const void* at) {
  asm volatile("{ .reg .u32 unused; ld.global.u32 unused, [%0]; }" ::"l"(at));
}

// Eight elements of x times the norm's weight (1 without) times `factor`; adds their squares.
__device__ inline uint4 NormedPiece(uint4 v, const float4* norm, float factor, float& squares) {
  squares = DotPiece(v, v, squares);
  float4 a = make_float4(1, 1, 1, 1), b = a;
  if (norm != nullptr) a = __ldg(norm), b = __ldg(norm + 1);
  v.x = Pack(Low(v.x) * a.x * factor, High(v.x) * a.y * factor);
  v.y = Pack(Low(v.y) * a.z * factor, High(v.y) * a.w * factor);
  v.z = Pack(Low(v.z) * b.x * factor, High(v.z) * b.y * factor);
  v.w = Pack(Low(v.w) * b.z * factor, High(v.w) * b.w * factor);
  return v;
}

__device__ inline float SumPiece(const uint4& v) {
  return Low(v.x) + High(v.x) + Low(v.y) + High(v.y) + Low(v.z) + High(v.z) + Low(v.w) + High(v.w);
}

// One row of x into shared memory, piece i at place_of(i), zeros up to `padded` pieces (a multiple
// of 32), by the first kThreads threads; with `kSums` the sums of every 16 pieces too. Returns the
// sum of the thread's squares.
template <bool kSums, int kThreads, class X, class PlaceOf>
__device__ inline float StageRow(const X& x, const float* norm, float factor, int pieces,
                                 int padded, const PlaceOf& place_of, uint4* staged, float* sums) {
  const bool plain = norm == nullptr && factor == 1.0f;
  const float4* weights = reinterpret_cast<const float4*>(norm);
  float squares = 0;
#pragma unroll 2
  for (int i = threadIdx.x; i < padded; i += kThreads) {
    uint4 v = i < pieces ? x[i] : make_uint4(0, 0, 0, 0);
    if (!plain && i < pieces) {
      v = NormedPiece(v, weights != nullptr ? weights + 2 * i : nullptr, factor, squares);
    }
    staged[place_of(i)] = v;
    if constexpr (kSums) {
      float sum = SumPiece(v);
#pragma unroll
      for (int offset = 8; offset > 0; offset /= 2) {
        sum += __shfl_xor_sync(kAllLanes, sum, offset);
      }
      if (i % 16 == 0) sums[i / 16] = sum;
    }
  }
  return squares;
}

// What the kernel in front has written, past the first-level cache.
__device__ inline uint4 LoadFresh(const uint4* at) {
  uint4 v;
  asm volatile("ld.global.cg.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(at)
               : "memory");
  return v;
}

// One row of x on its way into shared memory, by the first `threads` threads of the block.
struct StagedRow {
  const uint4* x;
  const float4* norm;  // or null
  int pieces, padded;  // of eight elements; with zeros behind, a multiple of 32
  int threads;
  CopyBarrier asked;  // arrived at by every warp once its first loads are under way
  uint4* to;

  // process(i, piece) for every piece of the thread's; all of a warp's lanes call it together.
  template <class Process>
  __device__ void Each(const Process& process) const {
    constexpr int kAhead = 4;
    int first = threadIdx.x;
    bool is_first = true;
    do {
      uint4 v[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        const int i = first + j * threads;
        v[j] = i < pieces ? LoadFresh(x + i) : make_uint4(0, 0, 0, 0);
      }
      if (is_first && threadIdx.x % kWarp == 0) asked.Arrive();
      is_first = false;
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (const int i = first + j * threads; i < padded) process(i, v[j]);
      }
      first += kAhead * threads;
    } while (first < padded);
  }
};

// Where a streamed product has piece i of x, with kPieces for each 16 bytes of weights: a quarter
// warp's lanes read 64 neighbouring bytes.
template <int kPieces>
__device__ inline int StreamPlace(int i) {
  const int chunk = i / (4 * kPieces), t = i / kPieces % 4;
  return chunk * 4 * kPieces + i % kPieces * 4 + t;
}

}  // namespace switchyard::kernels::cuda
