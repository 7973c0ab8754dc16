// Product of bf16 weights with many rows: prefill, and experts grouped by GroupByExpert.
//
// A block makes 128 x 128 results with eight warps of 64 x 32, k in steps of 64 through a ring of
// three stages in shared memory (96 KiB, within what capability 12.0 offers a block) filled by
// cp.async. 16-byte pieces of a row are swizzled by the row, so that ldmatrix meets no bank twice.
// Of gate and up, every 32 columns of a tile are 16 of gate and the same 16 of up: they meet in
// one thread's registers. mma.sync runs on every capability; Hopper's wgmma is not used.

#include "kernels/cuda/matmul_output.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kM = kTileRows, kN = 128, kK = 64, kStages = 3;
constexpr int kThreads = 256;
constexpr int kBand = 8;
constexpr int kPieces = kK / 8;  // 16-byte pieces of a row of a stage
constexpr size_t kSharedBytes = size_t{kStages} * (kM + kN) * kK * sizeof(Bf16);

__device__ inline uint4* Piece(uint4* tile, int row, int piece) {
  return tile + row * kPieces + (piece ^ (row % 8));
}

// Weight row of row `i` of a block's tile.
template <bool kGated>
__device__ int64_t TileWeightRow(const MatmulArgs& a, int64_t tile_n, int i) {
  if constexpr (kGated) {
    const int64_t column = tile_n * (kN / 2) + i / 32 * 16 + i % 16;
    if (column >= a.n / 2) return -1;
    return column + (i % 32 >= 16 ? a.n / 2 : 0);
  } else {
    const int64_t n = tile_n * kN + i;
    return n < a.n ? n : -1;
  }
}

template <Output kOutput>
__global__ __launch_bounds__(kThreads) void Tiled(const MatmulArgs a, int tiles_m, int tiles_n) {
  constexpr bool kGated = kOutput == Output::kGateUp;
  extern __shared__ uint4 shared[];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  GridTrigger();
  GridWait();

  // Blocks that run together share weights and rows in the second-level cache: eight tiles of rows
  // at a time.
  const int band = blockIdx.x / (kBand * tiles_n) * kBand, place = blockIdx.x % (kBand * tiles_n);
  const int bands = min(kBand, tiles_m - band);
  const int tile_m = band + place % bands;
  const int64_t tile_n = place / bands;
  int64_t expert = 0, first = int64_t{tile_m} * kM;
  int rows = static_cast<int>(min(int64_t{kM}, a.rows - first));
  if (a.tiles.entry != nullptr) {
    expert = a.tiles.tile_expert[tile_m];
    if (expert < 0) return;
    first = a.tiles.tile_first[tile_m];
    rows = a.tiles.tile_rows[tile_m];
  }
  const auto result_row = [&](int i) {
    return a.tiles.entry != nullptr ? int64_t{a.tiles.entry[first + i]} : first + i;
  };

  // A thread copies one piece of every 32nd row of both tiles.
  const int piece = threadIdx.x % kPieces;
  const Bf16* from_x[kM / 32];
  const Bf16* from_w[kN / 32];
  bool has_x[kM / 32], has_w[kN / 32];
#pragma unroll
  for (int i = 0; i < kM / 32; ++i) {
    const int row = threadIdx.x / kPieces + i * 32;
    has_x[i] = row < rows;
    from_x[i] = a.x + (has_x[i] ? InputRow(a, result_row(row)) : 0) * a.k + piece * 8;
    const int64_t weight_row = TileWeightRow<kGated>(a, tile_n, row);
    has_w[i] = weight_row >= 0;
    from_w[i] = static_cast<const Bf16*>(a.w) + (expert * a.n + (has_w[i] ? weight_row : 0)) * a.k +
                piece * 8;
  }
  const int steps = static_cast<int>((a.k + kK - 1) / kK);
  const auto copy = [&](int step) {
    if (step < steps) {
      uint4* tile = shared + (step % kStages) * (kM + kN) * kPieces;
      const int64_t k = int64_t{step} * kK;
      const bool inside = k + piece * 8 < a.k;
#pragma unroll
      for (int i = 0; i < kM / 32; ++i) {
        const int row = threadIdx.x / kPieces + i * 32;
        const bool x = inside && has_x[i], w = inside && has_w[i];
        CopyAsync(Piece(tile, row, piece), x ? from_x[i] + k : a.x, x);
        CopyAsync(Piece(tile + kM * kPieces, row, piece), w ? from_w[i] + k : a.w, w);
      }
    }
    CopyCommit();
  };

  const int warp_m = warp % 2 * 64, warp_n = warp / 2 * 32;
  float sum[4][4][4] = {};
  copy(0);
  copy(1);
  for (int step = 0; step < steps; ++step) {
    CopyWait<kStages - 2>();
    __syncthreads();
    copy(step + kStages - 1);
    uint4* x_tile = shared + (step % kStages) * (kM + kN) * kPieces;
    uint4* w_tile = x_tile + kM * kPieces;
#pragma unroll
    for (int k = 0; k < kPieces; k += 2) {
      uint32_t x[4][4], w[2][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        LoadTiles(x[i], Piece(x_tile, warp_m + i * 16 + lane % 16, k + lane / 16));
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        LoadTiles(w[j],
                  Piece(w_tile, warp_n + j * 16 + lane % 8 + lane / 16 * 8, k + lane / 8 % 2));
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          MultiplyTile(sum[i][j], x[i][0], x[i][1], x[i][2], x[i][3], w[j / 2][j % 2 * 2],
                       w[j / 2][j % 2 * 2 + 1]);
        }
      }
    }
  }

  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp_m + i * 16 + half * 8 + g;
      if (row >= rows) continue;
      const int64_t r = result_row(row);
#pragma unroll
      for (int j = 0; j < (kGated ? 2 : 4); ++j) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const int column = j * 8 + 2 * t + c;  // of the warp's 32
          if constexpr (kGated) {
            const int64_t n = tile_n * (kN / 2) + warp_n / 2 + column;
            if (n < a.n / 2) {
              StoreGateUp(a, expert, r, n, sum[i][j][half * 2 + c], sum[i][j + 2][half * 2 + c]);
            }
          } else {
            const int64_t n = tile_n * kN + warp_n + column;
            if (n < a.n) StoreResult<kOutput>(a, expert, r, n, sum[i][j][half * 2 + c]);
          }
        }
      }
    }
  }
}

template <Output kOutput>
OpError Run(const MatmulArgs& a, const LaunchContext& context) {
  SWITCHYARD_RETURN_IF_OP_ERROR(AllowShared(Tiled<kOutput>, kSharedBytes));
  const int64_t tiles = a.tiles.entry != nullptr ? a.tiles.most : (a.rows + kM - 1) / kM;
  const int64_t columns = (a.n + kN - 1) / kN;
  return Launch(context, static_cast<unsigned>(columns * tiles), kThreads, kSharedBytes,
                Tiled<kOutput>, a, tiles, columns);
}

}  // namespace

OpError TiledMatmul(const MatmulArgs& a, const LaunchContext& context) {
  switch (a.output) {
    case Output::kBf16:
      return Run<Output::kBf16>(a, context);
    case Output::kF32:
      return Run<Output::kF32>(a, context);
    case Output::kGateUp:
      return Run<Output::kGateUp>(a, context);
    case Output::kQkv:
      break;
  }
  return {"no such output of several rows"};
}

}  // namespace switchyard::kernels::cuda
