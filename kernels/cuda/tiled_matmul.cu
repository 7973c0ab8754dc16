// Product of bf16 weights with many rows: prefill, and experts grouped by GroupByExpert, or one for
// each row.
//
// A block makes 128 x 128 results with four warps of 64 x 64 (with 64 x 32, shared memory would be
// the bound), k in steps of 64 through a ring of three stages in shared memory (96 KiB, within what
// capability 12.0 offers a block) filled by cp.async. Of gate and up, every 32 columns of a tile
// are 16 of gate and the same 16 of up: they meet in one thread's registers. mma.sync runs on every
// capability; Hopper's wgmma is not used.
//
// On an H200 310 to 340 TFLOP/s for o and down, 240 for gate/up, where cuBLAS does 790. Tried:
// eight warps of 64 x 32 (176 to 276 for o and down, 289 for gate/up).

#include "kernels/cuda/matmul_output.cuh"
#include "kernels/cuda/matmul_tile.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kM = kTileRows, kN = 128, kK = kStageK, kStages = 3;
constexpr int kThreads = 128;
constexpr int kCopyRows = kThreads / (kK / 8);  // rows that all threads copy at once
constexpr int kBand = 8;
constexpr int kPieces = kStagePieces;
constexpr int kTogether = 16;  // rows of gate, then of up
constexpr size_t kSharedBytes = size_t{kStages} * (kM + kN) * kK * sizeof(Bf16);

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
  } else if (a.expert != nullptr) {  // an expert for each row
    expert = a.expert[tile_m];
    first = tile_m;
    rows = 1;
  }
  const auto result_row = [&](int i) {
    return a.tiles.entry != nullptr ? int64_t{a.tiles.entry[first + i]} : first + i;
  };

  // A thread copies one piece of every 16th row of both tiles. -1: no such row.
  const int piece = threadIdx.x % kPieces, copy_row = threadIdx.x / kPieces;
  int32_t from_x[kM / kCopyRows], from_w[kN / kCopyRows];
#pragma unroll
  for (int i = 0; i < kM / kCopyRows; ++i) {
    const int row = copy_row + i * kCopyRows;
    from_x[i] = row < rows ? static_cast<int32_t>(InputRow(a, result_row(row))) : -1;
    const int64_t weight_row = TileWeightRow<kGated, kN, kTogether>(a, tile_n, row);
    from_w[i] = weight_row < 0 ? -1 : static_cast<int32_t>(expert * a.n + weight_row);
  }
  const Bf16* w = static_cast<const Bf16*>(a.w);
  const int steps = static_cast<int>((a.k + kK - 1) / kK);
  const auto copy = [&](int step) {
    if (step < steps) {
      uint4* tile = shared + (step % kStages) * (kM + kN) * kPieces;
      const int64_t k = int64_t{step} * kK + piece * 8;
      const bool inside = k < a.k;
#pragma unroll
      for (int i = 0; i < kM / kCopyRows; ++i) {
        const int row = copy_row + i * kCopyRows;
        const bool has_x = inside && from_x[i] >= 0, has_w = inside && from_w[i] >= 0;
        CopyAsync(StagePiece(tile, row, piece), has_x ? a.x + from_x[i] * a.k + k : a.x, has_x);
        CopyAsync(StagePiece(tile + kM * kPieces, row, piece), has_w ? w + from_w[i] * a.k + k : w,
                  has_w);
      }
    }
    CopyCommit();
  };

  const int warp_m = warp % 2 * 64, warp_n = warp / 2 * 64;
  float sum[4][8][4] = {};
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
      uint32_t left[4][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        LoadTiles(left[i], StagePiece(x_tile, warp_m + i * 16 + lane % 16, k + lane / 16));
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        uint32_t right[4];
        LoadTiles(right,
                  StagePiece(w_tile, warp_n + j * 16 + lane % 8 + lane / 16 * 8, k + lane / 8 % 2));
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          MultiplyTile(sum[i][2 * j], left[i][0], left[i][1], left[i][2], left[i][3], right[0],
                       right[1]);
          MultiplyTile(sum[i][2 * j + 1], left[i][0], left[i][1], left[i][2], left[i][3], right[2],
                       right[3]);
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
      for (int j = 0; j < 8; ++j) {
        const float first = sum[i][j][half * 2], second = sum[i][j][half * 2 + 1];
        if constexpr (kGated) {  // of four tiles of eight columns, two are gate, two are up
          if (j % 4 >= 2) continue;
          const int64_t n = tile_n * (kN / 2) + warp_n / 2 + j / 4 * 16 + j % 2 * 8 + 2 * t;
          const int64_t width = a.n / 2;
          const float up = sum[i][j + 2][half * 2], second_up = sum[i][j + 2][half * 2 + 1];
          if (width % 2 == 0 && n < width) {
            *reinterpret_cast<uint32_t*>(static_cast<Bf16*>(a.out) + r * width + n) =
                Pack(GateUp(a, expert, n, first, up), GateUp(a, expert, n + 1, second, second_up));
          } else {
            if (n < width) StoreGateUp(a, expert, r, n, first, up);
            if (n + 1 < width) StoreGateUp(a, expert, r, n + 1, second, second_up);
          }
        } else {
          const int64_t n = tile_n * kN + warp_n + j * 8 + 2 * t;
          if (n < a.n) StoreTwo<kOutput>(a, expert, r, n, first, second);
        }
      }
    }
  }
}

template <Output kOutput>
OpError Run(const MatmulArgs& a, const LaunchContext& context) {
  SWITCHYARD_RETURN_IF_OP_ERROR(AllowShared(Tiled<kOutput>, kSharedBytes));
  const int64_t tiles = TilesOfRows(a, kM);
  const int64_t columns = (a.n + kN - 1) / kN;
  return Launch(context, static_cast<unsigned>(columns * tiles), kThreads, kSharedBytes,
                Tiled<kOutput>, a, tiles, columns);
}

}  // namespace

OpError TiledMatmul(const MatmulArgs& a, const LaunchContext& context) {
  return ForPlainOutput(a.output,
                        [&](auto output) { return Run<decltype(output)::value>(a, context); });
}

}  // namespace switchyard::kernels::cuda
