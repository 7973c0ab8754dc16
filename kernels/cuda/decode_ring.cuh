#pragma once

// How the decode product walks over its weights, and the rings in shared memory that it fills
// ahead of itself.

#include "kernels/cuda/weight_formats.cuh"
#include "kernels/cuda/weight_tile.cuh"

namespace switchyard::kernels::cuda {

constexpr int kDecodeWarps = 8, kDecodeThreads = kDecodeWarps * kWarp;
constexpr int kDecodeStages = 3;

struct DecodeArgs {
  MatmulArgs m;
  int32_t tiles = 0, tiles_a_block = 0;
  int32_t items = 0;    // of a row: two pieces of 16 bytes for each of four lanes
  bool ragged = false;  // the last one is not full
};

// A weight row as a lane reads it.
struct DecodeRow {
  const char *weights, *scales, *zeros;
};

// Where a warp stands in its block's tiles and items. A row that does not exist is read as the
// first one, and its results are never stored.
template <class Format, Output kOutput>
struct DecodeCursor {
  int32_t tile, item;
  DecodeRow row[2];

  __device__ void Enter(const DecodeArgs& s, int32_t to, int g, int t) {
    tile = to;
    const MatmulArgs& a = s.m;
    const TileRows rows = RowsOfTile<kOutput>(a, tile, g);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t r = max(half == 0 ? rows.low : rows.high, 0);
      row[half].weights = static_cast<const char*>(a.w) + r * (a.k * 16 / Format::kLaneK) + t * 16;
      if constexpr (Format::kWords > 0) {
        const int64_t element = Format::RowElement(a, 0, r);
        row[half].scales = static_cast<const char*>(a.scales) + element * Format::kScaleBytes;
        if (Format::kHasZeros) row[half].zeros = static_cast<const char*>(a.zeros) + element;
      }
    }
  }
};

__device__ inline void CopyWeights(uint32_t shared, const void* global, int bytes) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
               "r"(bytes)
               : "memory");
}
// The aligned word around `global`; arrays lie at multiples of 256 bytes, so that it is inside.
__device__ inline void CopyWord(uint32_t shared, const void* global, int bytes) {
  const uint64_t aligned = reinterpret_cast<uint64_t>(global) & ~uint64_t{3};
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared), "l"(aligned),
               "r"(bytes)
               : "memory");
}

template <class Format>
__host__ __device__ constexpr int DecodeWords() {  // of a row and item
  return Format::kWords * (Format::kHasZeros ? 2 : 1);
}
template <class Format>
__host__ __device__ constexpr size_t DecodeRingBytes() {
  return size_t{kDecodeStages} * kDecodeThreads * 2 * (32 + 4 * DecodeWords<Format>());
}

// A thread's ring: per stage two pieces of each of its two rows, and the words of their scales and
// zeros.
template <class Format>
class DecodeRing {
 public:
  __device__ explicit DecodeRing(const uint4* shared)
      : pieces_(shared + threadIdx.x),
        words_(reinterpret_cast<const uint32_t*>(shared + kDecodeStages * 4 * kDecodeThreads) +
               threadIdx.x) {}

  template <class Cursor>
  __device__ void Fill(int stage, const DecodeArgs& s, const Cursor& c, int t) const {
    const MatmulArgs& a = s.m;
    const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(piece(stage, 0, 0)));
    const uint32_t to_words = static_cast<uint32_t>(__cvta_generic_to_shared(word(stage, 0, 0)));
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      const int32_t chunk = c.item * 2 + p;
      const bool inside = !s.ragged || (chunk * 4 + t) * Format::kLaneK < a.k;
      const int32_t at = inside ? chunk * 64 : 0;
      CopyWeights(to + p * 2 * kPieceStep, c.row[0].weights + at, inside ? 16 : 0);
      CopyWeights(to + (p * 2 + 1) * kPieceStep, c.row[1].weights + at, inside ? 16 : 0);
      if (p >= Format::kWords) continue;
      // A chunk's scale multiplies sums in every lane, also in one whose own columns do not exist.
      const bool scaled = Format::kChunkScale || inside;
      const int32_t group = scaled ? Group(a, c.item, p, t) : 0;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        CopyWord(to_words + (p * 2 + half) * kWordStep,
                 c.row[half].scales + group * Format::kScaleBytes, scaled ? 4 : 0);
        if (Format::kHasZeros && a.zeros != nullptr) {
          CopyWord(to_words + ((Format::kWords + p) * 2 + half) * kWordStep,
                   c.row[half].zeros + group, scaled ? 4 : 0);
        }
      }
    }
  }

  // Of piece p of a row.
  template <class Cursor>
  __device__ ScaleWords Scales(int stage, const DecodeArgs& s, const Cursor& c, int p, int half,
                               int t) const {
    ScaleWords words;
    words.piece = p;
    if constexpr (Format::kWords > 0) {
      const int32_t group = Group(s.m, c.item, p, t);
      const int at = Format::kWords > 1 ? p : 0;
      words.scale = *word(stage, at, half);
      words.scale_at = static_cast<uint32_t>(reinterpret_cast<uint64_t>(c.row[half].scales)) +
                       group * Format::kScaleBytes;
      if (Format::kHasZeros) {
        const bool has = s.m.zeros != nullptr;
        words.zero = has ? *word(stage, Format::kWords + at, half) : 0x08080808;
        words.zero_at =
            static_cast<uint32_t>(reinterpret_cast<uint64_t>(c.row[half].zeros)) + group;
      }
    }
    return words;
  }
  __device__ uint4 Piece(int stage, int p, int half) const { return *piece(stage, p, half); }

 private:
  static constexpr uint32_t kPieceStep = kDecodeThreads * sizeof(uint4);
  static constexpr uint32_t kWordStep = kDecodeThreads * sizeof(uint32_t);

  // Which of a row's scales.
  __device__ static int32_t Group(const MatmulArgs& a, int32_t item, int p, int t) {
    const int32_t chunk = item * 2 + p;
    return (chunk * 4 + (Format::kChunkScale ? 0 : t)) * Format::kLaneK >> a.group_shift;
  }
  __device__ const uint4* piece(int stage, int p, int half) const {
    return pieces_ + (stage * 4 + p * 2 + half) * kDecodeThreads;
  }
  __device__ const uint32_t* word(int stage, int i, int half) const {
    return words_ + ((stage * DecodeWords<Format>() + i) * 2 + half) * kDecodeThreads;
  }
  const uint4* pieces_;
  const uint32_t* words_;
};

}  // namespace switchyard::kernels::cuda
