#pragma once

// A row of x, normed on the way, in shared memory: what a streamed product multiplies by.

#include "kernels/cuda/copy_barrier.cuh"
#include "kernels/cuda/device.cuh"

namespace switchyard::kernels::cuda {

// Eight elements of x times the norm's weight; adds their squares.
__device__ inline uint4 NormedPiece(uint4 v, const float4* norm, float& squares) {
  squares = DotPiece(v, v, squares);
  const float4 a = __ldg(norm), b = __ldg(norm + 1);
  v.x = Pack(Low(v.x) * a.x, High(v.x) * a.y);
  v.y = Pack(Low(v.y) * a.z, High(v.y) * a.w);
  v.z = Pack(Low(v.z) * b.x, High(v.z) * b.y);
  v.w = Pack(Low(v.w) * b.z, High(v.w) * b.w);
  return v;
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

// One row of x on its way into shared memory, by so many threads of the block; or, with kSeveral,
// rows one after the other, each with zeros behind it.
template <bool kSeveral, class Meanwhile>
struct StagedRows {
  const uint4* x;
  const float4* norm;  // or null; of one row
  int pieces, padded;  // of eight elements of a row; of all with zeros behind, a multiple of 32
  int thread, threads;
  uint4* to;
  const Meanwhile& meanwhile;  // called once, when the first loads are under way
  int padded_row = 0;          // of several

  // process(i, piece) for every piece of the thread's; all of a warp's lanes call it together.
  template <class Process>
  __device__ void Each(const Process& process) const {
    constexpr int kAhead = 4;
    int first = thread;
    bool is_first = true;
    do {
      uint4 v[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) v[j] = Load(first + j * threads);
      if (is_first) meanwhile();
      is_first = false;
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (const int i = first + j * threads; i < padded) process(i, v[j]);
      }
      first += kAhead * threads;
    } while (first < padded);
  }

  // process(pieces, v, valid): two pieces of a chunk of 2 kHalf, which are kHalf apart, a thread;
  // all of a warp's lanes call it together, those that have none with zeros that are not valid.
  template <int kHalf, class Process>
  __device__ void EachPair(const Process& process) const {
    constexpr int kAhead = 2;
    const int pairs = padded / 2;
    int next = thread;
    bool is_first = true;
    do {
      uint4 v[kAhead][2];
      int at[kAhead][2];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        const int i = next + j * threads, chunk = i / kHalf;
        // Lanes of every other chunk begin with its second half: then what lanes store together
        // meets fewer banks twice.
        at[j][0] = chunk * 2 * kHalf + (i % kHalf ^ chunk % 2 * kHalf);
        at[j][1] = at[j][0] ^ kHalf;
        v[j][0] = Load(at[j][0]);
        v[j][1] = Load(at[j][1]);
      }
      if (is_first) meanwhile();
      is_first = false;
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        const int i = next + j * threads;
        if (i / kWarp * kWarp < pairs) process(at[j], v[j], i < pairs);
      }
      next += kAhead * threads;
    } while (next / kWarp * kWarp < pairs);
  }

 private:
  __device__ uint4 Load(int i) const {
    bool inside = i < pieces;
    if constexpr (kSeveral) {
      const int row = i / padded_row, column = i - row * padded_row;
      inside = i < padded && column < pieces;
      i = row * pieces + column;
    }
    return inside ? LoadFresh(x + i) : make_uint4(0, 0, 0, 0);
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
