#pragma once

// Every weight format as the product kernels see it: a lane holds pieces of 16 bytes of a weight
// row (kLaneK neighbouring columns each) and turns eight columns at a time into four pairs of bf16,
// in registers; kHalves: into f16, as x is. A scale belongs either to all that four lanes hold in a
// piece (kChunkScale: it multiplies the sum of that chunk of 4 kLaneK columns), or to a lane, and
// then multiplies the weights.

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/matmul.h"

namespace switchyard::kernels::cuda {

// Bf16 pairs: a * b, and a + b.
__device__ inline uint32_t MultiplyPair(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(0x80008000u));
  return d;
}
__device__ inline uint32_t AddPair(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(0x3f803f80u), "r"(b));
  return d;
}

// a & b | c in one instruction, which two constants in C++ do not become.
__device__ inline uint32_t AndOr(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

__device__ inline uint32_t WordOf(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}
__device__ inline uint32_t ByteOf(uint32_t word, uint32_t i) { return word >> (8 * i) & 0xff; }
__device__ inline float HalfOf(uint32_t word, uint32_t i) {
  return __half2float(__ushort_as_half(static_cast<unsigned short>(word >> (16 * i))));
}

// What a lane needs of a row beside the weights: the 4-byte words that hold a piece's scale and
// zero, and the low bits of their addresses, which tell where in the word.
struct ScaleWords {
  uint32_t scale = 0, zero = 0;
  uint32_t scale_at = 0, zero_at = 0;
};

struct Bf16Format {
  static constexpr int kLaneK = 8, kWords = 0, kScaleBytes = 1;
  static constexpr bool kChunkScale = false, kHasZeros = false;
  static constexpr float kFactor = 1.0f;
  struct Lane {};
  __device__ static int64_t RowElement(const MatmulArgs&, int64_t, int64_t) { return 0; }
  __device__ static Lane Prepare(const ScaleWords&) { return {}; }
  __device__ static float ChunkScale(const ScaleWords&) { return 1.0f; }
  __device__ static void Unpack(const uint4& v, int, Lane, uint32_t (&pair)[4]) {
    pair[0] = v.x, pair[1] = v.y, pair[2] = v.z, pair[3] = v.w;
  }
};

// e4m3's exponent and fraction shifted into those of bf16 are the number times 2^-120, subnormal
// ones too.
struct Fp8Format {
  static constexpr int kLaneK = 16, kWords = 1, kScaleBytes = 4;
  static constexpr bool kChunkScale = true, kHasZeros = false;
  static constexpr float kFactor = 1.0f;
  static constexpr bool kHalves = false;
  struct Lane {};
  __device__ static int64_t RowElement(const MatmulArgs& a, int64_t expert, int64_t row) {
    if (a.group == 0) return expert * a.n + row;
    return (expert * ((a.n + 127) / 128) + row / 128) * ((a.k + 127) / 128);
  }
  __device__ static Lane Prepare(const ScaleWords&) { return {}; }
  __device__ static float ChunkScale(const ScaleWords& s) { return __uint_as_float(s.scale); }
  __device__ static uint32_t Pair(uint32_t word, uint32_t selector) {
    const uint32_t spread = __byte_perm(word, 0, selector);  // the upper byte of each half
    const uint32_t pair = (spread >> 4 & 0x07f007f0u) | (spread & 0x80008000u);
    return MultiplyPair(pair, 0x7b807b80u);
  }
  __device__ static void Unpack(const uint4& v, int i, Lane, uint32_t (&pair)[4]) {
    const uint32_t low = WordOf(v, 2 * i), high = WordOf(v, 2 * i + 1);
    pair[0] = Pair(low, 0x1404);
    pair[1] = Pair(low, 0x3424);
    pair[2] = Pair(high, 0x1404);
    pair[3] = Pair(high, 0x3424);
  }
};

// A nibble in the fraction of bf16's 128 is 128 + q; what is subtracted is exact as well. Groups of
// 128 or more.
struct Int4Format {
  static constexpr int kLaneK = 32, kWords = 1, kScaleBytes = 2;
  static constexpr bool kChunkScale = true, kHasZeros = true;
  static constexpr float kFactor = 1.0f;
  static constexpr bool kHalves = false;
  struct Lane {
    uint32_t minus_zero;  // -(128 + zero), twice
  };
  __device__ static int64_t RowElement(const MatmulArgs& a, int64_t expert, int64_t row) {
    return (expert * a.n + row) * (a.k >> a.group_shift);
  }
  __device__ static uint32_t Zero(const ScaleWords& s) { return ByteOf(s.zero, s.zero_at % 4); }
  __device__ static Lane Prepare(const ScaleWords& s) { return {Zero(s) * 0x10001u | 0xc300c300u}; }
  __device__ static float ChunkScale(const ScaleWords& s) {
    return HalfOf(s.scale, s.scale_at / 2 % 2);
  }
  __device__ static void Unpack(const uint4& v, int i, Lane lane, uint32_t (&pair)[4]) {
    const uint32_t word = WordOf(v, i);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      pair[j] = AddPair(AndOr(word >> (4 * j), 0x000f000fu, 0x43004300u), lane.minus_zero);
    }
  }
};

// The same in groups of any power of two from 32 up: every lane has its own scale, and a scaled
// weight is rounded to bf16.
struct Int4SmallFormat {
  static constexpr int kLaneK = 32, kWords = 2, kScaleBytes = 2;
  static constexpr bool kChunkScale = false, kHasZeros = true;
  static constexpr float kFactor = 1.0f;
  static constexpr bool kHalves = false;
  struct Lane {
    uint32_t minus_zero;
    float scale;
  };
  __device__ static int64_t RowElement(const MatmulArgs& a, int64_t expert, int64_t row) {
    return Int4Format::RowElement(a, expert, row);
  }
  __device__ static Lane Prepare(const ScaleWords& s) {
    return {Int4Format::Prepare(s).minus_zero, Int4Format::ChunkScale(s)};
  }
  __device__ static float ChunkScale(const ScaleWords&) { return 1.0f; }
  __device__ static void Unpack(const uint4& v, int i, Lane lane, uint32_t (&pair)[4]) {
    Int4Format::Unpack(v, i, {lane.minus_zero}, pair);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      pair[j] = Pack(Low(pair[j]) * lane.scale, High(pair[j]) * lane.scale);
    }
  }
};

// A nibble's exponent and fraction shifted into those of bf16 are the number times 2^-126. A scale
// is a power of two, so that nothing is rounded; 2^-32 of it is left to the sum, which keeps scales
// from 2^-93 to 2^33 in bf16's range.
struct Mxfp4Format {
  static constexpr int kLaneK = 32, kWords = 2, kScaleBytes = 1;
  static constexpr bool kChunkScale = false, kHasZeros = false;
  static constexpr float kFactor = 0x1p32f;
  static constexpr bool kHalves = false;
  struct Lane {
    uint32_t scale;  // twice
  };
  __device__ static int64_t RowElement(const MatmulArgs& a, int64_t expert, int64_t row) {
    return (expert * a.n + row) * (a.k >> 5);
  }
  __device__ static Lane Prepare(const ScaleWords& s) {
    const uint32_t exponent = min(ByteOf(s.scale, s.scale_at % 4) + 94, 254u);
    return {exponent << 7 | exponent << 23};
  }
  __device__ static float ChunkScale(const ScaleWords&) { return 1.0f; }
  __device__ static void Unpack(const uint4& v, int i, Lane lane, uint32_t (&pair)[4]) {
    const uint32_t word = WordOf(v, i), upper = word >> 8;
    // One product puts a nibble's sign at bit 15 and the rest at bits 6 to 8 of each half.
    pair[0] = MultiplyPair((word & 0x000f000fu) * 0x1040u & 0x81c081c0u, lane.scale);
    pair[1] = MultiplyPair((word & 0x00f000f0u) * 0x0104u & 0x81c081c0u, lane.scale);
    pair[2] = MultiplyPair((upper & 0x000f000fu) * 0x1040u & 0x81c081c0u, lane.scale);
    pair[3] = MultiplyPair((upper & 0x00f000f0u) * 0x0104u & 0x81c081c0u, lane.scale);
  }
};

}  // namespace switchyard::kernels::cuda
