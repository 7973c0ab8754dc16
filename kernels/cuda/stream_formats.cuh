#pragma once

// What a streamed product does with each weight format: how x is staged for it, and a chunk (four
// lanes' pieces of 16 rows) times x.
//
// fp8 multiplies in f16, where it costs fewer instructions: a chunk of x is staged as f16 times a
// power of two that makes its largest element 2^13 to 2^14, so that it is rounded to 11 bits at
// worst instead of bf16's eight.
//
// int4 multiplies in integers: of the right operand's eight columns one would do, so even ones have
// the upper and odd ones the lower byte of x, which is staged in 16 bits of its chunk's largest
// element. A nibble is a byte by one mask, or 16 times itself by another, and the sums of a chunk
// are exact: 2 (masks) + 1/2 (product) instructions for each eight weights.

#include "kernels/cuda/multiply_chunk.cuh"
#include "kernels/cuda/staged_row.cuh"
#include "kernels/cuda/stream_plan.h"

namespace switchyard::kernels::cuda {

// Loads from shared memory by its own 32-bit addresses: one register each, and offsets for nothing.
__device__ inline uint4 LoadPiece(uint32_t at) {
  uint4 v;
  asm volatile("ld.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(at)
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
// Keeps a value in a register where the compiler would compute it anew for every use.
__device__ inline uint32_t Kept(uint32_t v) {
  asm volatile("mov.u32 %0, %0;" : "+r"(v));
  return v;
}

// Of a chunk of x.
struct ChunkOfX {
  float inverse;  // what its elements were divided by
  int32_t sum;    // of 16 times its integers
  int32_t unused[2];
};

// Eight elements of x times the norm's weight; adds their squares.
__device__ inline void NormedElements(const uint4& piece, const float4* norm, float (&v)[8],
                                      float& squares) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    v[2 * j] = Low(WordOf(piece, j)), v[2 * j + 1] = High(WordOf(piece, j));
  }
  if (norm == nullptr) return;
  squares = DotPiece(piece, piece, squares);
  const float4 a = __ldg(norm), b = __ldg(norm + 1);
  v[0] *= a.x, v[1] *= a.y, v[2] *= a.z, v[3] *= a.w;
  v[4] *= b.x, v[5] *= b.y, v[6] *= b.z, v[7] *= b.w;
}

// Over neighbouring lanes, kLanes of them.
template <int kLanes, class T, class Add>
__device__ inline T OverLanes(T v, const Add& add) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    v = add(v, __shfl_xor_sync(kAllLanes, v, offset));
  }
  return v;
}

// One row of x into shared memory, chunk by chunk of kLanes pieces of eight elements, zeros up to
// `padded` pieces (a multiple of 32). `store(i, v, largest)` stores piece i of a chunk whose
// largest element is that. Returns the sum of the thread's squares.
template <int kLanes, class Store>
__device__ inline float StageChunks(const RowOfX& x, const float* norm, int pieces, int padded,
                                    const Store& store) {
  float squares = 0;
#pragma unroll 2
  for (int i = threadIdx.x; i < padded; i += kStreamWarps * kWarp) {
    float v[8] = {};
    if (i < pieces) {
      NormedElements(x[i],
                     norm != nullptr ? reinterpret_cast<const float4*>(norm) + 2 * i : nullptr, v,
                     squares);
    }
    float largest = 0;
#pragma unroll
    for (int j = 0; j < 8; ++j) largest = fmaxf(largest, fabsf(v[j]));
    store(i, v, OverLanes<kLanes>(largest, [](float a, float b) { return fmaxf(a, b); }));
  }
  return squares;
}

// With x as bf16.
template <class Format>
struct StreamBf16X : Format {
  static constexpr float kResult = Format::kSingleFactor;
  static constexpr int kPlaneBytes = 0;

  __device__ static float Stage(const RowOfX& x, const float* norm, int pieces, int padded,
                                uint4* staged, ChunkOfX*) {
    constexpr int kPieces = Format::kLaneK / 8;
    return StageRow<false, kStreamWarps * kWarp>(
        x, norm, Format::kSingleInput, pieces, padded,
        [](int i) { return StreamPlace<kPieces>(i); }, staged, nullptr);
  }
  template <class LoadX>
  __device__ static void Multiply(const uint4& low, const uint4& high, const ScaleWords& low_scale,
                                  const ScaleWords& high_scale, uint32_t, const LoadX& load_x,
                                  float (&sum)[1][4]) {
    MultiplyChunk<Format, true, 1>(
        low, high, low_scale, high_scale, 0.0f, [&](int, int i) { return load_x(i); }, sum);
  }
};

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

struct StreamFp8 : Fp8Format {
  static constexpr float kResult = kFp8HalfFactor;
  static constexpr int kPlaneBytes = 0;

  __device__ static float Stage(const RowOfX& x, const float* norm, int pieces, int padded,
                                uint4* staged, ChunkOfX* chunks) {
    constexpr int kPieces = kLaneK / 8, kLanes = 4 * kPieces;
    const auto store = [&](int i, const float(&v)[8], float largest) {
      const uint32_t exponent = min(max(__float_as_uint(largest) >> 23, 14u), 253u);
      const float up = __uint_as_float((267 - exponent) << 23);
      uint32_t words[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const __half2 pair = __floats2half2_rn(v[2 * j] * up, v[2 * j + 1] * up);
        words[j] = *reinterpret_cast<const uint32_t*>(&pair);
      }
      if (i % kLanes == 0) chunks[i / kLanes] = {__uint_as_float((exponent - 13) << 23), 0, {}};
      staged[StreamPlace<kPieces>(i)] = make_uint4(words[0], words[1], words[2], words[3]);
    };
    return StageChunks<kLanes>(x, norm, pieces, padded, store);
  }
  template <class LoadX>
  __device__ static void Multiply(const uint4& low, const uint4& high, const ScaleWords& low_scale,
                                  const ScaleWords& high_scale, uint32_t chunk, const LoadX& load_x,
                                  float (&sum)[1][4]) {
    float d[2][4] = {};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t l = WordOf(low, i), h = WordOf(high, i);
      const uint4 x = load_x(i / 2);
      MultiplyHalfTile(d[i % 2], HalvesOfFp8(l, false), HalvesOfFp8(h, false), HalvesOfFp8(l, true),
                       HalvesOfFp8(h, true), i % 2 == 0 ? x.x : x.z, i % 2 == 0 ? x.y : x.w);
    }
    const float inverse = __uint_as_float(LoadWord<4>(chunk));
    sum[0][0] = fmaf(ChunkScale(low_scale) * inverse, d[0][0] + d[1][0], sum[0][0]);
    sum[0][2] = fmaf(ChunkScale(high_scale) * inverse, d[0][2] + d[1][2], sum[0][2]);
  }
};

// d += 16 rows of unsigned bytes times eight columns of signed ones; registers as in MultiplyTile.
__device__ inline void MultiplyByteTile(int32_t (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                        uint32_t a3, uint32_t b0, uint32_t b1) {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Groups of any multiple of 128. A staged chunk of x is 256 bytes: those that even nibbles multiply
// and those of odd ones, of either the upper bytes and the lower, each for four lanes.
struct StreamInt4 : Int4Format {
  static constexpr float kResult = 1.0f;
  static constexpr int kPlaneBytes = 64;
  static constexpr float kMost = 127 * 256 + 127;  // of an element: both bytes are signed

  __device__ static float Stage(const RowOfX& x, const float* norm, int pieces, int padded,
                                uint4* staged, ChunkOfX* chunks) {
    constexpr int kLanes = 16;
    const auto store = [&](int i, const float(&v)[8], float largest) {
      // The largest of zeros, or one that is next to it, divides by a number that can be inverted.
      const float unit = fmaxf(largest, 0x1p-100f) / kMost, up = 1 / unit;
      int32_t upper[8], lower[8], sum = 0;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const int32_t all = __float2int_rn(v[j] * up);
        upper[j] = (all + 128) >> 8;
        lower[j] = all - (upper[j] << 8);
        sum += all;
      }
      sum = OverLanes<kLanes>(sum, [](int32_t a, int32_t b) { return a + b; });
      if (i % kLanes == 0) chunks[i / kLanes] = {unit / 16, sum * 16, {}};
      const auto bytes = [](const int32_t(&b)[8], int at) {
        return __byte_perm(__byte_perm(b[at], b[at + 4], 0x0040),
                           __byte_perm(b[at + 1], b[at + 5], 0x0040), 0x5410);
      };
      uint32_t* to = reinterpret_cast<uint32_t*>(staged) + i / kLanes * 64 + i % kLanes;
      to[0] = bytes(upper, 0), to[16] = bytes(lower, 0);
      to[32] = bytes(upper, 2), to[48] = bytes(lower, 2);
    };
    return StageChunks<kLanes>(x, norm, pieces, padded, store);
  }
  template <class LoadX>
  __device__ static void Multiply(const uint4& low, const uint4& high, const ScaleWords& low_scale,
                                  const ScaleWords& high_scale, uint32_t chunk, const LoadX& load_x,
                                  float (&sum)[1][4]) {
    int32_t d[2][4] = {};
#pragma unroll
    for (int odd = 0; odd < 2; ++odd) {
      const uint32_t mask = odd == 0 ? 0x0f0f0f0fu : 0xf0f0f0f0u;
      const uint4 x = load_x(2 * odd);
      MultiplyByteTile(d[odd], low.x & mask, high.x & mask, low.y & mask, high.y & mask, x.x, x.y);
      MultiplyByteTile(d[odd], low.z & mask, high.z & mask, low.w & mask, high.w & mask, x.z, x.w);
    }
    const uint32_t unit = LoadWord<4>(chunk), x_sum = LoadWord<4>(chunk + 4);
    // 16 times the sum in integers, at most 2^31 whatever the weights.
    const auto of_row = [&](int at, const ScaleWords& s) {
      const int32_t upper = d[0][at] * 16 + d[1][at], lower = d[0][at + 1] * 16 + d[1][at + 1];
      const int32_t all = upper * 256 + lower - static_cast<int32_t>(s.zero * x_sum);
      return ChunkScale(s) * __uint_as_float(unit) * static_cast<float>(all);
    };
    sum[0][0] += of_row(0, low_scale);
    sum[0][2] += of_row(2, high_scale);
  }
};

using StreamBf16 = StreamBf16X<Bf16Format>;
using StreamInt4Small = StreamBf16X<Int4SmallFormat>;
using StreamMxfp4 = StreamBf16X<Mxfp4Format>;

}  // namespace switchyard::kernels::cuda
