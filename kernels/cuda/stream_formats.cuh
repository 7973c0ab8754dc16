#pragma once

// What a streamed product does with each weight format: how x is staged for it, and a chunk (four
// lanes' pieces of 16 rows) times x.
//
// fp8 and int4 multiply in f16, where they cost fewer instructions: a chunk of x is staged as f16
// times a power of two that makes its largest element 2^13 to 2^14, so that it is rounded to 11
// bits at worst instead of bf16's eight. A nibble in the fraction of f16's 1024 is 1024 + q, four
// bits higher 1024 + 16 q: two of four nibbles need no shift. What is too much is subtracted by the
// sums of x.

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

// Of a chunk of x as f16.
struct ChunkOfX {
  float inverse;  // of the power of two
  float excess;   // what the nibbles' 1024s add up to
  float sum;
  float unused;
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

// One row of x into shared memory as f16, chunk by chunk of 4 kPieces pieces, zeros up to `padded`
// pieces (a multiple of 32); with kSums what int4 subtracts, and the even words first. Returns the
// sum of the thread's squares.
template <int kPieces, bool kSums>
__device__ inline float StageHalfRow(const RowOfX& x, const float* norm, int pieces, int padded,
                                     uint4* staged, ChunkOfX* chunks) {
  constexpr int kGroup = 4 * kPieces;  // lanes
  const auto over_group = [](float v, const auto& add) {
#pragma unroll
    for (int offset = kGroup / 2; offset > 0; offset /= 2) {
      v = add(v, __shfl_xor_sync(kAllLanes, v, offset));
    }
    return v;
  };
  const auto plus = [](float a, float b) { return a + b; };
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
    largest = over_group(largest, [](float a, float b) { return fmaxf(a, b); });
    const uint32_t exponent = min(max(__float_as_uint(largest) >> 23, 14u), 253u);
    const float up = __uint_as_float((267 - exponent) << 23);
    uint32_t words[4];
    float even = 0, odd = 0;  // of nibbles in place, and of those four bits higher
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const __half2 pair = __floats2half2_rn(v[2 * j] * up, v[2 * j + 1] * up);
      words[j] = *reinterpret_cast<const uint32_t*>(&pair);
      (j % 2 == 0 ? even : odd) += __low2float(pair) + __high2float(pair);
    }
    if constexpr (kSums) even = over_group(even, plus), odd = over_group(odd, plus);
    if (i % kGroup == 0) {
      chunks[i / kGroup] = {__uint_as_float((exponent - 13) << 23), 1024 * even + 64 * odd,
                            even + odd, 0};
    }
    // The tensor core takes two words from neighbouring registers.
    staged[StreamPlace<kPieces>(i)] = kSums ? make_uint4(words[0], words[2], words[1], words[3])
                                            : make_uint4(words[0], words[1], words[2], words[3]);
  }
  return squares;
}

// With x as bf16.
template <class Format>
struct StreamBf16X : Format {
  static constexpr float kResult = Format::kSingleFactor;

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

  __device__ static float Stage(const RowOfX& x, const float* norm, int pieces, int padded,
                                uint4* staged, ChunkOfX* chunks) {
    return StageHalfRow<kLaneK / 8, false>(x, norm, pieces, padded, staged, chunks);
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

// Groups of any multiple of 128.
struct StreamInt4 : Int4Format {
  static constexpr float kResult = 1.0f;

  __device__ static float Stage(const RowOfX& x, const float* norm, int pieces, int padded,
                                uint4* staged, ChunkOfX* chunks) {
    return StageHalfRow<kLaneK / 8, true>(x, norm, pieces, padded, staged, chunks);
  }
  template <class LoadX>
  __device__ static void Multiply(const uint4& low, const uint4& high, const ScaleWords& low_scale,
                                  const ScaleWords& high_scale, uint32_t chunk, const LoadX& load_x,
                                  float (&sum)[1][4]) {
    constexpr uint32_t kLow = 0x000f000fu, kHigh = 0x00f000f0u, kOne = 0x64006400u;
    float d[4] = {}, sixteen[4] = {};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t l = WordOf(low, i), h = WordOf(high, i);
      const uint32_t l8 = l >> 8, h8 = h >> 8;
      const uint4 x = load_x(i);
      MultiplyHalfTile(d, AndOr(l, kLow, kOne), AndOr(h, kLow, kOne), AndOr(l8, kLow, kOne),
                       AndOr(h8, kLow, kOne), x.x, x.y);
      MultiplyHalfTile(sixteen, AndOr(l, kHigh, kOne), AndOr(h, kHigh, kOne),
                       AndOr(l8, kHigh, kOne), AndOr(h8, kHigh, kOne), x.z, x.w);
    }
    const uint4 words = LoadPiece(chunk);
    const float inverse = __uint_as_float(words.x), excess = __uint_as_float(words.y);
    const float x_sum = __uint_as_float(words.z);
    const auto of_row = [&](float one, float other, const ScaleWords& s) {
      const float all = fmaf(other, 1.0f / 16, one) - excess;
      return ChunkScale(s) * inverse * fmaf(-static_cast<float>(s.zero), x_sum, all);
    };
    sum[0][0] += of_row(d[0], sixteen[0], low_scale);
    sum[0][2] += of_row(d[2], sixteen[2], high_scale);
  }
};

using StreamBf16 = StreamBf16X<Bf16Format>;
using StreamInt4Small = StreamBf16X<Int4SmallFormat>;
using StreamMxfp4 = StreamBf16X<Mxfp4Format>;

}  // namespace switchyard::kernels::cuda
