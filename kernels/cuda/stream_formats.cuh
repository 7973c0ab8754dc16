#pragma once

// What a streamed product does with each weight format: how x is staged for it, and a chunk (four
// lanes' pieces of 16 rows) times x.
//
// fp8 multiplies in f16, where it costs fewer instructions: a chunk of x is staged as f16 times a
// power of two that makes its largest element 2^13 to 2^14, so that it is rounded to 11 bits at
// worst instead of bf16's eight.
//
// int4 multiplies in integers: of the right operand's eight columns even ones have the upper and
// odd ones the lower byte of a row of x, which is staged in 16 bits of its chunk's largest element.
// A nibble is a byte by one mask, or 16 times itself by another, and the sums of a chunk are exact:
// 2 (masks) + 1/2 (product) instructions for each eight weights.
//
// mxfp4 does so, too, for one row of x: twice a weight is a small integer. A permutation of bytes
// looks four up by their nibbles, and leaves zeros where a nibble's upper bit is set: that of the
// positive ones, and with these bits turned over that of the negative ones, are products of their
// own. A lane's piece is a group with a scale of its own, so each two columns of the right operand
// have x for one lane's group only, and zeros for the others'. 7 (permutations) + 1 (products)
// instructions for each eight weights; as bf16 17.

#include "kernels/cuda/halves.cuh"
#include "kernels/cuda/multiply_chunk.cuh"
#include "kernels/cuda/shared_memory.cuh"
#include "kernels/cuda/staged_row.cuh"
#include "kernels/cuda/stream_plan.h"

namespace switchyard::kernels::cuda {

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

__device__ inline float LargerOrNan(float a, float b) {
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
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

// x chunk by chunk of kPieces pieces, two a lane: store(at, v, largest, valid) stores pieces at[0]
// and at[1] of a chunk whose largest element is that, if they are valid. Returns the sum of the
// thread's squares.
template <int kPieces, class Rows, class Store>
__device__ inline float StageChunks(const Rows& row, const Store& store) {
  float squares = 0;
  row.template EachPair<kPieces / 2>([&](const int(&at)[2], const uint4(&pieces)[2], bool valid) {
    float v[2][8];
    float largest = 0;
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      const bool normed = row.norm != nullptr && at[p] < row.pieces;
      NormedElements(pieces[p], normed ? row.norm + 2 * at[p] : nullptr, v[p], squares);
#pragma unroll
      for (int j = 0; j < 8; ++j) largest = LargerOrNan(largest, fabsf(v[p][j]));
    }
    store(at, v, OverLanes<kPieces / 2>(largest, LargerOrNan), valid);
  });
  return squares;
}

// Where a lane finds what is known of the two rows of x whose columns of the right operand it
// holds, of a chunk: the same, where x has one row.
struct ChunksOfLane {
  uint32_t first, second;
};

// With x as bf16.
template <class Format>
struct StreamBf16X : Format {
  static constexpr float kResult = Format::kFactor;
  static constexpr int kColumns = 1;  // of the right operand, of a row of x
  static constexpr int kPlaneBytes = 0;
  static constexpr bool kLaneSums = false;  // four lanes have a part of a sum each

  template <class Rows>
  __device__ static float Stage(const Rows& row, ChunkOfX*) {
    float squares = 0;
    row.Each([&](int i, uint4 piece) {
      if (row.norm != nullptr && i < row.pieces) {
        piece = NormedPiece(piece, row.norm + 2 * i, squares);
      }
      row.to[StreamPlace<Format::kLaneK / 8>(i)] = piece;
    });
    return squares;
  }
  template <bool kMany, class LoadX>
  __device__ static void Multiply(const uint4& low, const uint4& high, const ScaleWords& low_scale,
                                  const ScaleWords& high_scale, const ChunksOfLane&,
                                  const LoadX& load_x, float (&sum)[1][4]) {
    MultiplyChunk<Format, !kMany, 1>(
        low, high, low_scale, high_scale, [&](int, int i) { return load_x(i); }, sum);
  }
};

struct StreamFp8 : Fp8Format {
  static constexpr float kResult = kFp8HalfFactor;
  static constexpr int kColumns = 1;
  static constexpr int kPlaneBytes = 0;
  static constexpr bool kLaneSums = false;

  template <class Rows>
  __device__ static float Stage(const Rows& row, ChunkOfX* chunks) {
    constexpr int kPieces = kLaneK / 8, kChunk = 4 * kPieces;
    const auto store = [&](const int(&at)[2], const float(&v)[2][8], float largest, bool valid) {
      const uint32_t exponent = min(max(__float_as_uint(largest) >> 23, 14u), 253u);
      const float up = __uint_as_float((267 - exponent) << 23);
      if (!valid) return;
      if (at[0] % (kChunk / 2) == 0) {
        chunks[at[0] / kChunk] = {__uint_as_float((exponent - 13) << 23), 0, {}};
      }
#pragma unroll
      for (int p = 0; p < 2; ++p) {
        uint32_t words[4];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const __half2 pair = __floats2half2_rn(v[p][2 * j] * up, v[p][2 * j + 1] * up);
          words[j] = *reinterpret_cast<const uint32_t*>(&pair);
        }
        row.to[StreamPlace<kPieces>(at[p])] = make_uint4(words[0], words[1], words[2], words[3]);
      }
    };
    return StageChunks<kChunk>(row, store);
  }
  template <bool kMany, class LoadX>
  __device__ static void Multiply(const uint4& low, const uint4& high, const ScaleWords& low_scale,
                                  const ScaleWords& high_scale, const ChunksOfLane& chunks,
                                  const LoadX& load_x, float (&sum)[1][4]) {
    float d[2][4] = {};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint32_t l = WordOf(low, i), h = WordOf(high, i);
      const uint4 x = load_x(i / 2);
      MultiplyHalfTile(d[i % 2], HalvesOfFp8(l, false), HalvesOfFp8(h, false), HalvesOfFp8(l, true),
                       HalvesOfFp8(h, true), i % 2 == 0 ? x.x : x.z, i % 2 == 0 ? x.y : x.w);
    }
    const auto add = [&](int at, float inverse) {
      sum[0][at] = fmaf(ChunkScale(low_scale) * inverse, d[0][at] + d[1][at], sum[0][at]);
      sum[0][at + 2] =
          fmaf(ChunkScale(high_scale) * inverse, d[0][at + 2] + d[1][at + 2], sum[0][at + 2]);
    };
    add(0, __uint_as_float(LoadWord<4>(chunks.first)));
    if constexpr (kMany) add(1, __uint_as_float(LoadWord<4>(chunks.second)));
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

// x in 16 bits of its chunk's largest element, as two planes of bytes: a staged chunk is 256 bytes,
// for either half of a word's nibbles the upper bytes and the lower, each for four lanes. The first
// half's nibbles hold columns 0, kSecond, kThird and kFourth, the other's those kNext further.
// chunk(i, unit, sum) keeps what is known of chunk i; `sum`: of its integers, if kSums.
template <int kSecond, int kThird, int kFourth, int kNext, bool kSums, class Rows, class Chunk>
__device__ inline float StagePlanes(const Rows& row, const Chunk& chunk) {
  constexpr int kPieces = 16;               // of a chunk
  constexpr float kMost = 127 * 256 + 127;  // of an element: both bytes are signed
  const auto store = [&](const int(&at)[2], const float(&v)[2][8], float largest, bool valid) {
    // Of zeros, or of what is next to them, a number that can be divided by.
    const float unit = LargerOrNan(largest, 0x1p-100f) * (1 / kMost), up = __fdividef(1.0f, unit);
    int32_t upper_sum = 0, lower_sum = 0;
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      // An integer appears in the fraction of 1.5 * 2^23 + itself; 128 more, so that its lower byte
      // less 128 is signed, and the next one is the upper byte.
      uint32_t all[8];
#pragma unroll
      for (int j = 0; j < 8; ++j) all[j] = __float_as_uint(fmaf(v[p][j], up, 12582912.0f + 128.0f));
      uint32_t* to = reinterpret_cast<uint32_t*>(row.to) + at[p] / kPieces * 64 + at[p] % kPieces;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t* b = all + kNext * half;
        const uint32_t first = __byte_perm(b[0], b[kSecond], 0x5140);
        const uint32_t second = __byte_perm(b[kThird], b[kFourth], 0x5140);
        const uint32_t lower = __byte_perm(first, second, 0x5410) ^ 0x80808080u;
        const uint32_t upper = __byte_perm(first, second, 0x7632);
        if (valid) to[32 * half] = upper, to[32 * half + 16] = lower;
        if (kSums) {
          upper_sum = __dp4a(static_cast<int32_t>(upper), 0x01010101, upper_sum);
          lower_sum = __dp4a(static_cast<int32_t>(lower), 0x01010101, lower_sum);
        }
      }
    }
    int32_t sum = upper_sum * 256 + lower_sum;
    if (kSums) sum = OverLanes<kPieces / 2>(sum, [](int32_t a, int32_t b) { return a + b; });
    if (valid && at[0] % (kPieces / 2) == 0) chunk(at[0] / kPieces, unit, sum);
  };
  return StageChunks<kPieces>(row, store);
}

// Groups of any multiple of 128, symmetric or with zeros. The first half of a word's nibbles are
// the even ones.
template <bool kZeros>
struct StreamInt4Of : Int4Format {
  static constexpr bool kHasZeros = kZeros;
  static constexpr float kResult = 1.0f;
  static constexpr int kColumns = 2;  // a lane's two are the two of one row
  static constexpr int kPlaneBytes = 64;
  static constexpr bool kLaneSums = false;

  template <class Rows>
  __device__ static float Stage(const Rows& row, ChunkOfX* chunks) {
    return StagePlanes<4, 1, 5, 2, true>(row, [&](int i, float unit, int32_t sum) {
      chunks[i] = {unit / 16, sum * 16, {}};
    });
  }
  template <bool kMany, class LoadX>
  __device__ static void Multiply(const uint4& low, const uint4& high, const ScaleWords& low_scale,
                                  const ScaleWords& high_scale, const ChunksOfLane& chunks,
                                  const LoadX& load_x, float (&sum)[1][4]) {
    int32_t d[2][4] = {};
#pragma unroll
    for (int odd = 0; odd < 2; ++odd) {
      const uint32_t mask = odd == 0 ? 0x0f0f0f0fu : 0xf0f0f0f0u;
      const uint4 x = load_x(2 * odd);
      MultiplyByteTile(d[odd], low.x & mask, high.x & mask, low.y & mask, high.y & mask, x.x, x.y);
      MultiplyByteTile(d[odd], low.z & mask, high.z & mask, low.w & mask, high.w & mask, x.z, x.w);
    }
    const TwoWords of_x = LoadTwoWords(chunks.first);  // its unit and sum
    // 16 times the sum in integers, at most 2^31 whatever the weights.
    const auto of_row = [&](int at, const ScaleWords& s) {
      const int32_t upper = d[0][at] * 16 + d[1][at], lower = d[0][at + 1] * 16 + d[1][at + 1];
      const uint32_t zeros = (kZeros ? s.zero : 8) * of_x.second;
      const int32_t all = upper * 256 + lower - static_cast<int32_t>(zeros);
      return ChunkScale(s) * __uint_as_float(of_x.first) * static_cast<float>(all);
    };
    sum[0][0] += of_row(0, low_scale);
    sum[0][2] += of_row(2, high_scale);
  }
};

// Twice the weight's magnitude of each of four nibbles whose upper bit is not set, else 0.
__device__ inline uint32_t TwiceMxfp4(uint32_t nibbles) {
  uint32_t d;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(0x03020100u), "r"(0x0c080604u), "r"(nibbles));
  return d;
}

// One row of x. The first half of a word's nibbles are the lower ones.
struct StreamMxfp4Row : Mxfp4Format {
  static constexpr float kResult = 0.5f;
  static constexpr int kColumns = 8;
  static constexpr int kPlaneBytes = 64;
  static constexpr bool kLaneSums = true;

  template <class Rows>
  __device__ static float Stage(const Rows& row, ChunkOfX* chunks) {
    return StagePlanes<2, 4, 6, 1, false>(row, [&](int i, float unit, int32_t) {
      chunks[i] = {unit, 0, {}};
    });
  }
  template <bool kMany, class LoadX>
  __device__ static void Multiply(const uint4& low, const uint4& high, const ScaleWords& low_scale,
                                  const ScaleWords& high_scale, const ChunksOfLane& chunks,
                                  const LoadX& load_x, float (&sum)[1][4]) {
    static_assert(!kMany);
    // Columns 2 t and 2 t + 1 are those of lane t's group: lane (g, t) holds column g.
    const bool of_group = threadIdx.x % kWarp / 8 == threadIdx.x % 4;
    int32_t positive[4] = {}, negative[4] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint4 x = load_x(2 * half, of_group);
#pragma unroll
      for (int j = 0; j < 4; j += 2) {
        const auto nibbles = [&](const uint4& of, int word) {
          return WordOf(of, word) >> 16 * half;
        };
        const uint32_t a[4] = {nibbles(low, j), nibbles(high, j), nibbles(low, j + 1),
                               nibbles(high, j + 1)};
        const auto multiply = [&](int32_t(&sums)[4], uint32_t signs) {
          MultiplyByteTile(sums, TwiceMxfp4(a[0] ^ signs), TwiceMxfp4(a[1] ^ signs),
                           TwiceMxfp4(a[2] ^ signs), TwiceMxfp4(a[3] ^ signs), WordOf(x, j),
                           WordOf(x, j + 1));
        };
        multiply(positive, 0);
        multiply(negative, 0x8888);
      }
    }
    const float unit = __uint_as_float(LoadWord<4>(chunks.first));
    // The smallest scale, 2^-127, is taken for 0.
    const auto of_row = [&](int at, const ScaleWords& s) {
      const int32_t upper = positive[at] - negative[at];
      const int32_t lower = positive[at + 1] - negative[at + 1];
      return __uint_as_float(s.scale << 23) * unit * static_cast<float>(upper * 256 + lower);
    };
    sum[0][0] += of_row(0, low_scale);
    sum[0][2] += of_row(2, high_scale);
  }
};

using StreamBf16 = StreamBf16X<Bf16Format>;
using StreamInt4 = StreamInt4Of<false>;
using StreamInt4Zeros = StreamInt4Of<true>;
using StreamInt4Small = StreamBf16X<Int4SmallFormat>;

// What multiplies where x has several rows.
template <class Format>
struct WithManyRows {
  using Type = Format;
};
template <>
struct WithManyRows<StreamMxfp4Row> {
  using Type = StreamBf16X<Mxfp4Format>;
};

}  // namespace switchyard::kernels::cuda
