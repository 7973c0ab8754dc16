// Product of bf16 weights with 2 to 128 rows: decode of a batch.
//
// A block has 128 weight rows (of gate and up: 64 each), all rows of x, and a part of k; weights
// and x arrive in shared memory by cp.async, 64 k at a time, through a ring of four stages (three
// for more than 64 rows: at most 96 KiB). The weights of the first stages are asked for before the
// kernel in front has ended. Eight warps take 32 weight rows each and half of the rows of x (up to
// 32 rows: 16 and all). Where 128 weight rows a block leave multiprocessors idle, k is cut and a
// second kernel adds the parts up, in their order; where results may not depend on the number of
// rows, blocks are narrower instead: of 32 or 64 weight rows.
//
// Bound by memory: each weight is read once, x from the second-level cache by every block.

#include <algorithm>

#include "kernels/cuda/batch_parts.cuh"
#include "kernels/cuda/matmul_tile.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kK = kStageK;
constexpr int kPieces = kStagePieces;
constexpr int kTogether = 8;    // rows of gate, then of up
constexpr int kLeastSteps = 4;  // of a part of k

// Weight rows of a block, and its threads: two a weight row.
constexpr int kWideN = kBatchN;
__host__ __device__ constexpr int NarrowN(int m) { return m <= 32 ? 32 : 64; }
__host__ __device__ constexpr int ThreadsOf(int n) { return 2 * n; }
// m: rows of x that a block is made for. Narrow ones have twice the stages where those fit.
__host__ __device__ constexpr int StagesOf(int m, int n) {
  return n < kWideN && m <= 32 ? 8 : m > 64 ? 3 : 4;
}
constexpr size_t SharedOf(int m, int n) {
  return size_t{sizeof(Bf16)} * StagesOf(m, n) * (m + n) * kK;
}

// Weights: what follows in the row is wanted next.
__device__ inline void CopyWeights(void* shared, const void* global, bool valid) {
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global.L2::256B [%0], [%1], 16, %2;" ::"r"(to), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}

// parts, with k cut: f32 [splits][tiles][kM][kN]; else null.
template <Output kOutput, int kM, int kN>
__global__ __launch_bounds__(ThreadsOf(kN), kM > 64 ? 1 : 2) void Batched(const MatmulArgs a,
                                                                          int steps_each,
                                                                          float* parts) {
  constexpr bool kGated = kOutput == Output::kGateUp;
  constexpr int kThreads = ThreadsOf(kN), kWarps = kThreads / kWarp;
  constexpr int kCopyRows = kThreads / kPieces;  // rows that all threads copy at once
  constexpr int kStages = StagesOf(kM, kN);
  constexpr int kWarpsM = kM >= 64 ? 2 : 1, kWarpM = kM / kWarpsM, kWarpN = kN * kWarpsM / kWarps;
  constexpr int kTilesM = kWarpM / 16, kTilesN = kWarpN / 8;
  constexpr int kXPieces = (kM * kPieces + kThreads - 1) / kThreads;
  extern __shared__ uint4 shared[];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t tile = blockIdx.x;
  const int step_first = blockIdx.y * steps_each;
  const int steps = min(steps_each, static_cast<int>((a.k + kK - 1) / kK) - step_first);
  const int piece = threadIdx.x % kPieces, copy_row = threadIdx.x / kPieces;
  const int64_t k_first = int64_t{step_first} * kK + piece * 8;

  const Bf16* from_w[kN / kCopyRows];
#pragma unroll
  for (int i = 0; i < kN / kCopyRows; ++i) {
    const int64_t row = TileWeightRow<kGated, kN, kTogether>(a, tile, copy_row + i * kCopyRows);
    from_w[i] = row < 0 ? nullptr : static_cast<const Bf16*>(a.w) + row * a.k + k_first;
  }
  const auto stage_of = [&](int step) { return shared + step % kStages * (kM + kN) * kPieces; };
  const auto copy_weights = [&](int step) {
    if (step >= steps) return;
    uint4* to = stage_of(step) + kM * kPieces;
    const bool inside = k_first + step * kK < a.k;
#pragma unroll
    for (int i = 0; i < kN / kCopyRows; ++i) {
      const bool valid = inside && from_w[i] != nullptr;
      CopyWeights(StagePiece(to, copy_row + i * kCopyRows, piece),
                  valid ? from_w[i] + step * kK : static_cast<const Bf16*>(a.w), valid);
    }
  };

  GridTrigger();
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) copy_weights(i);
  GridWait();

  const Bf16* from_x[kXPieces];
#pragma unroll
  for (int i = 0; i < kXPieces; ++i) {
    const int row = copy_row + i * kCopyRows;
    from_x[i] = row < a.rows ? a.x + InputRow(a, row) * a.k + k_first : nullptr;
  }
  const auto copy_x = [&](int step) {
    if (step < steps) {
      const bool inside = k_first + step * kK < a.k;
#pragma unroll
      for (int i = 0; i < kXPieces; ++i) {
        const int row = copy_row + i * kCopyRows;
        if (kM * kPieces < kThreads && row >= kM) continue;
        const bool valid = inside && from_x[i] != nullptr;
        CopyAsync(StagePiece(stage_of(step), row, piece), valid ? from_x[i] + step * kK : a.x,
                  valid);
      }
    }
    CopyCommit();
  };
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) copy_x(i);

  const int warp_m = warp % kWarpsM * kWarpM, warp_n = warp / kWarpsM * kWarpN;
  float sum[kTilesM][kTilesN][4] = {};
  for (int step = 0; step < steps; ++step) {
    CopyWait<kStages - 2>();
    __syncthreads();
    copy_weights(step + kStages - 1);
    copy_x(step + kStages - 1);
    uint4* x_tile = stage_of(step);
    uint4* w_tile = x_tile + kM * kPieces;
#pragma unroll
    for (int k = 0; k < kPieces; k += 2) {
      uint32_t right[kTilesN / 2][4];
#pragma unroll
      for (int j = 0; j < kTilesN / 2; ++j) {
        LoadTiles(right[j],
                  StagePiece(w_tile, warp_n + j * 16 + lane % 8 + lane / 16 * 8, k + lane / 8 % 2));
      }
#pragma unroll
      for (int i = 0; i < kTilesM; ++i) {
        uint32_t left[4];
        LoadTiles(left, StagePiece(x_tile, warp_m + i * 16 + lane % 16, k + lane / 16));
#pragma unroll
        for (int j = 0; j < kTilesN; ++j) {
          MultiplyTile(sum[i][j], left[0], left[1], left[2], left[3], right[j / 2][j % 2 * 2],
                       right[j / 2][j % 2 * 2 + 1]);
        }
      }
    }
  }

  const int g = lane / 4, t = lane % 4;
  if (parts != nullptr) parts += (int64_t{blockIdx.y} * gridDim.x + tile) * kM * kN;
#pragma unroll
  for (int i = 0; i < kTilesM; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = warp_m + i * 16 + half * 8 + g;
      if (row >= a.rows) continue;
#pragma unroll
      for (int j = 0; j < kTilesN; ++j) {
        const float2 two = {sum[i][j][half * 2], sum[i][j][half * 2 + 1]};
        if (parts != nullptr) {
          *reinterpret_cast<float2*>(parts + row * kN + warp_n + j * 8 + 2 * t) = two;
        } else if constexpr (kGated) {
          if (j % 2 != 0) continue;
          const float2 up = {sum[i][j + 1][half * 2], sum[i][j + 1][half * 2 + 1]};
          StorePair<kOutput, kN>(a, tile, row, warp_n / 2 + j / 2 * 8 + 2 * t, two, up);
        } else {
          StorePair<kOutput, kN>(a, tile, row, warp_n + j * 8 + 2 * t, two, two);
        }
      }
    }
  }
}

// One block makes all of a result, in the order of k.
template <Output kOutput, int kM, int kN>
OpError RunWhole(const MatmulArgs& a, const LaunchContext& context) {
  constexpr size_t kShared = SharedOf(kM, kN);
  static_assert(kShared <= 99 << 10);
  SWITCHYARD_RETURN_IF_OP_ERROR(AllowShared(Batched<kOutput, kM, kN>, kShared));
  const int steps = static_cast<int>((a.k + kK - 1) / kK);
  return Launch(context, static_cast<unsigned>((a.n + kN - 1) / kN), ThreadsOf(kN), kShared,
                Batched<kOutput, kM, kN>, a, steps, nullptr);
}

template <Output kOutput, int kM>
OpError Run(const MatmulArgs& a, const LaunchContext& context) {
  constexpr int kN = kWideN;
  const int tiles = static_cast<int>((a.n + kN - 1) / kN);
  if (context.invariant) {
    return tiles < context.multiprocessors ? RunWhole<kOutput, kM, NarrowN(kM)>(a, context)
                                           : RunWhole<kOutput, kM, kN>(a, context);
  }
  const int steps = static_cast<int>((a.k + kK - 1) / kK);
  const BatchParts parts = PlanParts(a, kM, steps, kLeastSteps, context.multiprocessors);
  if (parts.data == nullptr) return RunWhole<kOutput, kM, kN>(a, context);
  constexpr size_t kShared = SharedOf(kM, kN);
  SWITCHYARD_RETURN_IF_OP_ERROR(AllowShared(Batched<kOutput, kM, kN>, kShared));
  SWITCHYARD_RETURN_IF_OP_ERROR(Launch(context, dim3(parts.tiles, parts.splits), ThreadsOf(kN),
                                       kShared, Batched<kOutput, kM, kN>, a, parts.steps_each,
                                       parts.data));
  return AddParts(a, kM, parts, context);
}

template <Output kOutput>
OpError Run(const MatmulArgs& a, const LaunchContext& context) {
  if (a.rows <= 16) return Run<kOutput, 16>(a, context);
  if (a.rows <= 32) return Run<kOutput, 32>(a, context);
  if (a.rows <= 64) return Run<kOutput, 64>(a, context);
  return Run<kOutput, 128>(a, context);
}

}  // namespace

OpError BatchMatmul(const MatmulArgs& a, const LaunchContext& context) {
  if (a.rows > kBatchRows) return {"more rows than the batched product takes"};
  return ForPlainOutput(a.output,
                        [&](auto output) { return Run<decltype(output)::value>(a, context); });
}

}  // namespace switchyard::kernels::cuda
