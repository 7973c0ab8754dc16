#pragma once

// Product of quantized weights with many rows: batches, prefill, and experts grouped by
// GroupByExpert, or one for each row; with few rows too where results may not depend on their
// number.
//
// A block makes kM x kN results with four warps, two by two (of 16 rows, side by side), k in steps
// of a chunk (64 bytes of each weight row) through a ring in shared memory: x as bf16, and the
// weights as they are in memory. A lane turns its 16 bytes of a weight row into bf16 in registers,
// eight neighbouring columns at a time, and takes the same columns of x: the order in which a
// tensor core adds up does not matter. A scaled weight is rounded to bf16. A thread fetches the
// scales of one weight row a step ahead; where a step computes little they come by cp.async, too,
// as the words that hold them. Of gate and up, every 32 columns of a tile are 16 of gate and the
// same 16 of up (of a warp's 16 columns, 8): they meet in one thread's registers. mma.sync runs on
// every capability.

#include <algorithm>

#include "kernels/cuda/matmul_output.cuh"
#include "kernels/cuda/matmul_tile.cuh"
#include "kernels/cuda/weight_formats.cuh"

namespace switchyard::kernels::cuda {

constexpr int kQuantThreads = 128;

// A weight's factor as the sum of two numbers of bf16 (each twice), and int4's zero; of mxfp4 the
// first alone.
struct alignas(16) TileScale {
  uint32_t high, low, minus_zero, unused;
};

__device__ inline TileScale SplitScale(float scale, uint32_t minus_zero) {
  const float high = __bfloat162float(__float2bfloat16_rn(scale));
  return {Pack(high, high), Pack(scale - high, scale - high), minus_zero, 0};
}
__device__ inline void ScalePairs(uint32_t (&pair)[4], const TileScale& s) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const uint32_t low = MultiplyPair(pair[j], s.low);
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(pair[j]) : "r"(pair[j]), "r"(s.high), "r"(low));
  }
}

// Element At of the scales (and zeros) is what a piece of a row needs. Fetch reads it from memory,
// OfWords finds it in the words that hold it, and Make turns it into what the block shares.
struct Fp8Tile {
  using Format = Fp8Format;
  using Raw = float;
  static constexpr int kSubs = 1, kStages = 3;
  __device__ static int64_t At(const MatmulArgs& a, int64_t expert, int64_t row, int64_t k) {
    return Format::RowElement(a, expert, row) + (k >> a.group_shift);
  }
  __device__ static Raw Fetch(const MatmulArgs& a, int64_t expert, int64_t row, int64_t k) {
    return static_cast<const float*>(a.scales)[At(a, expert, row, k)];
  }
  __device__ static Raw OfWords(uint32_t scale, uint32_t, int64_t, bool) {
    return __uint_as_float(scale);
  }
  __device__ static TileScale Make(Raw raw) { return SplitScale(raw, 0); }
  __device__ static void Unpack(const uint4& v, int i, const TileScale& s, uint32_t (&pair)[4]) {
    Format::Unpack(v, i, {}, pair);
    ScalePairs(pair, s);
  }
};

// One scale a chunk where groups are of 128 or more, else one for each lane's 32 columns.
template <int kScales>
struct Int4Tile {
  using Format = Int4Format;
  static constexpr int kSubs = kScales, kStages = 2;
  struct Raw {
    uint16_t scale;
    uint8_t zero;
  };
  __device__ static int64_t At(const MatmulArgs& a, int64_t expert, int64_t row, int64_t k) {
    return Format::RowElement(a, expert, row) + (k >> a.group_shift);
  }
  __device__ static Raw OfWords(uint32_t scale, uint32_t zero, int64_t at, bool zeros) {
    return {static_cast<uint16_t>(scale >> (at % 2 * 16)),
            static_cast<uint8_t>(zeros ? ByteOf(zero, at % 4) : 8)};
  }
  __device__ static Raw Fetch(const MatmulArgs& a, int64_t expert, int64_t row, int64_t k) {
    const int64_t at = At(a, expert, row, k);
    const uint8_t* zeros = static_cast<const uint8_t*>(a.zeros);
    return {static_cast<const uint16_t*>(a.scales)[at],
            zeros != nullptr ? zeros[at] : static_cast<uint8_t>(8)};
  }
  __device__ static TileScale Make(Raw raw) {
    return SplitScale(__half2float(__ushort_as_half(raw.scale)), raw.zero * 0x10001u | 0xc300c300u);
  }
  __device__ static void Unpack(const uint4& v, int i, const TileScale& s, uint32_t (&pair)[4]) {
    Format::Unpack(v, i, {s.minus_zero}, pair);
    ScalePairs(pair, s);
  }
};

struct Mxfp4Tile {
  using Format = Mxfp4Format;
  using Raw = uint8_t;
  static constexpr int kSubs = 4, kStages = 2;
  __device__ static int64_t At(const MatmulArgs& a, int64_t expert, int64_t row, int64_t k) {
    return Format::RowElement(a, expert, row) + (k >> 5);
  }
  __device__ static Raw OfWords(uint32_t scale, uint32_t, int64_t at, bool) {
    return static_cast<uint8_t>(ByteOf(scale, at % 4));
  }
  __device__ static Raw Fetch(const MatmulArgs& a, int64_t expert, int64_t row, int64_t k) {
    return static_cast<const uint8_t*>(a.scales)[At(a, expert, row, k)];
  }
  __device__ static TileScale Make(Raw raw) {
    ScaleWords words;
    words.scale = raw;
    return {Format::Prepare(words).scale, 0, 0, 0};
  }
  __device__ static void Unpack(const uint4& v, int i, const TileScale& s, uint32_t (&pair)[4]) {
    Format::Unpack(v, i, {s.high}, pair);
  }
};

template <class Tile, int kM, int kN>
struct QuantStage {
  static constexpr int kChunkK = 4 * Tile::Format::kLaneK;
  static constexpr int kXPieces = kChunkK / 8;  // of 16 bytes, of a row
  uint4 x[kM * kXPieces];
  uint4 w[kN * 4];
  TileScale scale[Tile::kSubs * kN];

  // Piece `p` of a row of x lies where lanes t of rows g and g + 1 that read their i-th piece meet
  // no bank twice.
  __device__ uint4* X(int row, int p) {
    constexpr int kLanePieces = kXPieces / 4;
    return x + row * kXPieces + ((p % kLanePieces * 4 + p / kLanePieces) ^ (row % 2 * 4));
  }
};

// A block of 16 rows waits for memory: it has more stages, and scales as words in shared memory.
__host__ __device__ constexpr bool QuantWords(int m) { return m <= 16; }
template <class Tile>
__host__ __device__ constexpr int QuantStages(int m) {
  return !QuantWords(m) ? Tile::kStages : Tile::kSubs > 1 ? 6 : 8;
}
// Of the scales and zeros of a stage's weight rows.
template <class Tile, int kN>
struct QuantRawScales {
  uint32_t scale[Tile::kSubs * kN], zero[Tile::Format::kHasZeros ? Tile::kSubs * kN : 4];
};

// The aligned word at `global`.
__device__ inline void CopyAsyncWord(void* shared, const void* global) {
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(global) : "memory");
}

template <class Tile, Output kOutput, int kM, int kN>
__global__ __launch_bounds__(kQuantThreads, 2) void QuantTiled(const MatmulArgs a, int tiles_m,
                                                               int tiles_n) {
  using Format = typename Tile::Format;
  using Stage = QuantStage<Tile, kM, kN>;
  constexpr bool kGated = kOutput == Output::kGateUp;
  constexpr int kStages = QuantStages<Tile>(kM), kLanePieces = Stage::kXPieces / 4;
  constexpr int kWarpsM = kM > 16 ? 2 : 1, kWarpsN = kQuantThreads / kWarp / kWarpsM;
  constexpr int kWarpM = kM / kWarpsM, kWarpN = kN / kWarpsN;
  constexpr int kTilesM = kWarpM / 16, kTilesN = kWarpN / 8;
  // Of gate and up a warp has so many tiles of gate, then as many of up.
  constexpr int kHalf = kTilesN < 4 ? 1 : 2, kTogether = 8 * kHalf;
  extern __shared__ uint4 shared[];
  Stage* stages = reinterpret_cast<Stage*>(shared);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  GridTrigger();
  GridWait();

  // Blocks that run together share weights and rows in the second-level cache: eight tiles of rows
  // at a time.
  const int band = blockIdx.x / (8 * tiles_n) * 8, place = blockIdx.x % (8 * tiles_n);
  const int bands = min(8, tiles_m - band);
  const int tile_m = band + place % bands;
  const int64_t tile_n = place / bands;
  int64_t expert = 0, first = int64_t{tile_m} * kM;
  int rows = static_cast<int>(min(int64_t{kM}, a.rows - first));
  if (a.tiles.entry != nullptr) {
    expert = a.tiles.tile_expert[tile_m];
    if (expert < 0) return;
    first = a.tiles.tile_first[tile_m];
    rows = a.tiles.tile_rows[tile_m];
  } else if (a.expert != nullptr) {  // an expert for each row
    expert = a.expert[tile_m];
    first = tile_m;
    rows = 1;
  }
  const auto result_row = [&](int i) {
    return a.tiles.entry != nullptr ? int64_t{a.tiles.entry[first + i]} : first + i;
  };

  // A thread copies one piece of x of every kXStep-th row, one of the weights of every 32nd, and
  // the scales of weight row threadIdx.x.
  constexpr int kXStep = kQuantThreads / Stage::kXPieces, kWStep = kQuantThreads / 4;
  const int x_piece = threadIdx.x % Stage::kXPieces, x_row = threadIdx.x / Stage::kXPieces;
  const int w_piece = threadIdx.x % 4, w_row = threadIdx.x / 4;
  const Bf16* from_x[kM / kXStep];
  const char* from_w[kN / kWStep];
  const int64_t pitch = a.k * 16 / Format::kLaneK;
#pragma unroll
  for (int i = 0; i < kM / kXStep; ++i) {
    const int row = x_row + i * kXStep;
    from_x[i] = row < rows ? a.x + InputRow(a, result_row(row)) * a.k + x_piece * 8 : nullptr;
  }
#pragma unroll
  for (int i = 0; i < kN / kWStep; ++i) {
    const int64_t row = TileWeightRow<kGated, kN, kTogether>(a, tile_n, w_row + i * kWStep);
    from_w[i] = row < 0
                    ? nullptr
                    : static_cast<const char*>(a.w) + (expert * a.n + row) * pitch + w_piece * 16;
  }
  const int64_t scale_row =
      threadIdx.x < kN ? TileWeightRow<kGated, kN, kTogether>(a, tile_n, threadIdx.x) : -1;
  const int steps = static_cast<int>((a.k + Stage::kChunkK - 1) / Stage::kChunkK);
  const auto copy = [&](int step) {
    if (step < steps) {
      Stage& to = stages[step % kStages];
      const int64_t k = int64_t{step} * Stage::kChunkK;
      const bool x_inside = k + x_piece * 8 < a.k;
      const bool w_inside = k + w_piece * Format::kLaneK < a.k;
#pragma unroll
      for (int i = 0; i < kM / kXStep; ++i) {
        const bool valid = x_inside && from_x[i] != nullptr;
        CopyAsync(to.X(x_row + i * kXStep, x_piece), valid ? from_x[i] + k : a.x, valid);
      }
#pragma unroll
      for (int i = 0; i < kN / kWStep; ++i) {
        const bool valid = w_inside && from_w[i] != nullptr;
        CopyAsync(to.w + (w_row + i * kWStep) * 4 + w_piece,
                  valid ? from_w[i] + int64_t{step} * 64 : a.w, valid);
      }
    }
    CopyCommit();
  };
  // The scales of a step: to registers and from there to where the block shares them.
  typename Tile::Raw fetched[Tile::kSubs];
  const auto column_of = [&](int step, int i) {
    return int64_t{step} * Stage::kChunkK + i * Format::kLaneK;
  };
  const auto has_scale = [&](int step, int i) {
    return scale_row >= 0 && column_of(step, i) < a.k;
  };
  const auto fetch = [&](int step) {
#pragma unroll
    for (int i = 0; i < Tile::kSubs; ++i) {
      fetched[i] = {};
      if (has_scale(step, i)) fetched[i] = Tile::Fetch(a, expert, scale_row, column_of(step, i));
    }
  };
  const auto put = [&](int step) {
    if (threadIdx.x >= kN || step >= steps) return;
#pragma unroll
    for (int i = 0; i < Tile::kSubs; ++i) {
      stages[step % kStages].scale[i * kN + threadIdx.x] = Tile::Make(fetched[i]);
    }
  };
  // Or by words, which only the thread that asked for them reads.
  auto* words = reinterpret_cast<QuantRawScales<Tile, kN>*>(stages + kStages);
  const auto copy_words = [&](int step) {
    if (threadIdx.x >= kN || step >= steps) return;
    QuantRawScales<Tile, kN>& to = words[step % kStages];
#pragma unroll
    for (int i = 0; i < Tile::kSubs; ++i) {
      if (!has_scale(step, i)) continue;
      const int64_t at = Tile::At(a, expert, scale_row, column_of(step, i));
      CopyAsyncWord(to.scale + i * kN + threadIdx.x,
                    static_cast<const char*>(a.scales) + at * Format::kScaleBytes / 4 * 4);
      if (Format::kHasZeros && a.zeros != nullptr) {
        CopyAsyncWord(to.zero + i * kN + threadIdx.x,
                      static_cast<const char*>(a.zeros) + at / 4 * 4);
      }
    }
  };
  const auto put_words = [&](int step) {
    if (threadIdx.x >= kN || step >= steps) return;
    const QuantRawScales<Tile, kN>& from = words[step % kStages];
#pragma unroll
    for (int i = 0; i < Tile::kSubs; ++i) {
      TileScale scale = {0, 0, 0, 0};
      if (has_scale(step, i)) {
        const int64_t at = Tile::At(a, expert, scale_row, column_of(step, i));
        const uint32_t zero = Format::kHasZeros ? from.zero[i * kN + threadIdx.x] : 0;
        scale = Tile::Make(
            Tile::OfWords(from.scale[i * kN + threadIdx.x], zero, at, a.zeros != nullptr));
      }
      stages[step % kStages].scale[i * kN + threadIdx.x] = scale;
    }
  };

  const int warp_m = warp % kWarpsM * kWarpM, warp_n = warp / kWarpsM * kWarpN;
  float sum[kTilesM][kTilesN][4] = {};
  const auto compute = [&](int step) {
    Stage& from = stages[step % kStages];
    uint4 weights[kTilesN];
#pragma unroll
    for (int j = 0; j < kTilesN; ++j) weights[j] = from.w[(warp_n + j * 8 + g) * 4 + t];
#pragma unroll
    for (int i = 0; i < kLanePieces; ++i) {
      uint4 low[kTilesM], high[kTilesM];
#pragma unroll
      for (int m = 0; m < kTilesM; ++m) {
        low[m] = *from.X(warp_m + m * 16 + g, t * kLanePieces + i);
        high[m] = *from.X(warp_m + m * 16 + g + 8, t * kLanePieces + i);
      }
#pragma unroll
      for (int j = 0; j < kTilesN; ++j) {
        const int sub = Tile::kSubs > 1 ? t : 0;
        const TileScale scale = from.scale[sub * kN + warp_n + j * 8 + g];
        uint32_t pair[4];
        Tile::Unpack(weights[j], i, scale, pair);
#pragma unroll
        for (int m = 0; m < kTilesM; ++m) {
          MultiplyTile(sum[m][j], low[m].x, high[m].x, low[m].y, high[m].y, pair[0], pair[1]);
          MultiplyTile(sum[m][j], low[m].z, high[m].z, low[m].w, high[m].w, pair[2], pair[3]);
        }
      }
    }
  };

#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) {
    if constexpr (QuantWords(kM)) copy_words(i);
    copy(i);
    if constexpr (!QuantWords(kM)) {
      fetch(i);
      put(i);
    }
  }
  if constexpr (QuantWords(kM)) {
    CopyWait<kStages - 2>();
    put_words(0);
    for (int step = 0; step < steps; ++step) {
      CopyWait<kStages - 3>();
      __syncthreads();
      put_words(step + 1);
      copy_words(step + kStages - 1);
      copy(step + kStages - 1);
      compute(step);
    }
  } else {
    for (int step = 0; step < steps; ++step) {
      CopyWait<kStages - 2>();
      __syncthreads();
      copy(step + kStages - 1);
      fetch(step + kStages - 1);
      compute(step);
      put(step + kStages - 1);
    }
  }

#pragma unroll
  for (int m = 0; m < kTilesM; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp_m + m * 16 + half * 8 + g;
      if (row >= rows) continue;
      const int64_t r = result_row(row);
#pragma unroll
      for (int j = 0; j < kTilesN; ++j) {
        const float first_sum = sum[m][j][half * 2] * Format::kFactor;
        const float second_sum = sum[m][j][half * 2 + 1] * Format::kFactor;
        if constexpr (kGated) {
          if (j % (2 * kHalf) >= kHalf) continue;
          const int64_t n =
              tile_n * (kN / 2) + warp_n / 2 + j / (2 * kHalf) * kTogether + j % kHalf * 8 + 2 * t;
          const float up = sum[m][j + kHalf][half * 2] * Format::kFactor;
          const float second_up = sum[m][j + kHalf][half * 2 + 1] * Format::kFactor;
          if (n < a.n / 2) StoreGateUp(a, expert, r, n, first_sum, up);
          if (n + 1 < a.n / 2) StoreGateUp(a, expert, r, n + 1, second_sum, second_up);
        } else {
          const int64_t n = tile_n * kN + warp_n + j * 8 + 2 * t;
          if (n < a.n) StoreTwo<kOutput>(a, expert, r, n, first_sum, second_sum);
        }
      }
    }
  }
}

template <class Tile, Output kOutput, int kM, int kN>
OpError RunQuantTile(const MatmulArgs& a, const LaunchContext& context) {
  const auto kernel = QuantTiled<Tile, kOutput, kM, kN>;
  constexpr size_t stage =
      sizeof(QuantStage<Tile, kM, kN>) + (QuantWords(kM) ? sizeof(QuantRawScales<Tile, kN>) : 0);
  constexpr size_t shared = QuantStages<Tile>(kM) * stage;
  static_assert(shared <= 99 * 1024);
  SWITCHYARD_RETURN_IF_OP_ERROR(AllowShared(kernel, shared));
  const int64_t tiles = TilesOfRows(a, kM);
  const int64_t columns = (a.n + kN - 1) / kN;
  return Launch(context, static_cast<unsigned>(columns * tiles), kQuantThreads, shared, kernel, a,
                tiles, columns);
}

// Tiles of 64 x 64 read weights with more blocks; those of 128 x 128 compute faster.
template <class Tile, Output kOutput>
OpError RunQuantTile(const MatmulArgs& a, const LaunchContext& context) {
  const int32_t rows = a.tiles.entry != nullptr ? a.tiles.rows : a.expert != nullptr ? 1 : a.rows;
  if (rows <= 16) return RunQuantTile<Tile, kOutput, 16, 64>(a, context);
  const bool small = rows <= kSmallTileRows;
  return small ? RunQuantTile<Tile, kOutput, 64, 64>(a, context)
               : RunQuantTile<Tile, kOutput, 128, 128>(a, context);
}

template <class Tile>
OpError RunQuantTile(const MatmulArgs& a, const LaunchContext& context) {
  return ForPlainOutput(a.output, [&](auto output) {
    return RunQuantTile<Tile, decltype(output)::value>(a, context);
  });
}

}  // namespace switchyard::kernels::cuda
