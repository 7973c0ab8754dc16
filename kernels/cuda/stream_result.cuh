#pragma once

// How a streamed product stores what its warps have summed up.

#include "kernels/cuda/stream_copy.cuh"
#include "kernels/cuda/stream_formats.cuh"
#include "kernels/cuda/stream_plan.h"
#include "kernels/cuda/weight_tile.cuh"

namespace switchyard::kernels::cuda {

// Of a team's threads that multiply.
__device__ inline int TeamThread() { return threadIdx.x % (kStreamWarps * kWarp); }

// What a thread needs, beside the sums, to store a pair of results of a batch of tiles, of one row
// of x.
template <Output kOutput, bool kMany>
struct StreamResult {
  static constexpr int kBatch = kMany ? kStreamBatchMany : kStreamBatch;
  static constexpr int kPairs = kBatch * 8, kColumns = kMany ? kStreamMany : 1;
  static_assert(kPairs * kColumns <= kStreamWarps * kWarp);
  TileRows rows = {-1, -1};
  QkvTarget target = {};
  float low_bias = 0, high_bias = 0;
  Bf16 low_before, high_before;  // what the results are added to, as it lies there

  // Which row of x, of several.
  __device__ static int Column() { return TeamThread() / kPairs; }

  // Reads what the kernel in front does not write: biases, and of several rows where a step's rows
  // go. Of teams that share their tiles the first one stores.
  __device__ void LookUp(const StreamArgs& s, int32_t expert, int team, int32_t first,
                         int32_t stride) {
    const int pair = TeamThread() % kPairs;
    const int64_t tile = first + int64_t{pair / 8} * stride;
    rows = {-1, -1};
    if constexpr (kOutput == Output::kQkv && !kMany) {
      if (Column() == 0) rows = {0, 0};  // which these are, and whether any, the target says
      return;
    }
    if (kOutput == Output::kChosen && s.plan.split && team > 0) return;
    if (Column() >= (kMany ? s.m.rows : 1) || tile >= s.plan.tiles) return;
    rows = RowsOfTile<kOutput>(s.m, static_cast<int32_t>(tile), pair % 8);
    if constexpr (kOutput == Output::kQkv && kMany) {
      if (rows.low < 0) return;
      target = TargetOfPair(s.m, static_cast<int32_t>(tile) * 8 + pair % 8, Column());
    }
    if constexpr (kOutput == Output::kBf16) {
      if (rows.low >= 0) low_bias = Biased(s.m, expert, rows.low, 0);
      if (rows.high >= 0) high_bias = Biased(s.m, expert, rows.high, 0);
    }
    if constexpr (kOutput == Output::kChosen) WeighBiases(s.m);
  }
  __device__ void WeighBiases(const MatmulArgs& a) {
    low_bias = high_bias = 0;
#pragma unroll 4
    for (int32_t r = 0; r < a.rows && a.bias != nullptr; ++r) {
      const float* bias = a.bias + int64_t{ExpertOf(a, r)} * a.n;
      const float weight = WeightOf(a, r);
      if (rows.low >= 0) low_bias = fmaf(weight, bias[rows.low], low_bias);
      if (rows.high >= 0) high_bias = fmaf(weight, bias[rows.high], high_bias);
    }
  }
  // What a warp that copies has looked up, of one row.
  __device__ void TakeTarget(uint32_t targets) {
    if (rows.low < 0) return;
    const uint32_t at = targets + TeamThread() * static_cast<int>(sizeof(QkvTarget));
    const uint4 to = LoadPiece(at), turn = LoadPiece(at + 16);
    static_assert(sizeof(QkvTarget) == 2 * sizeof(uint4));
    reinterpret_cast<uint4*>(&target)[0] = to;
    reinterpret_cast<uint4*>(&target)[1] = turn;
  }
  // What kernels in front have written; used only to store.
  __device__ void LoadBefore(const MatmulArgs& a, int32_t row) {
    low_before = high_before = __float2bfloat16_rn(0.0f);
    if ((kOutput != Output::kBf16 && kOutput != Output::kChosen) || !a.accumulate) return;
    const Bf16* out = static_cast<const Bf16*>(a.out) + int64_t{row} * a.n;
    if (rows.low >= 0) low_before = out[rows.low];
    if (rows.high >= 0) high_before = out[rows.high];
  }

  // `other`: what another team has left of the same tiles, or null.
  __device__ void Store(const MatmulArgs& a, int32_t expert, int32_t row, const float* partial,
                        const float* other, float factor) const {
    if (rows.low < 0) return;
    const int pair = TeamThread() % kPairs;
    const float* from =
        partial + pair / 8 * (kStreamWarps * kColumns * 16) + Column() * 16 + pair % 8;
    float low = 0, high = 0;
#pragma unroll
    for (int i = 0; i < kStreamWarps; ++i) {
      low += from[i * kColumns * 16], high += from[i * kColumns * 16 + 8];
    }
    if (kOutput == Output::kChosen && other != nullptr) {
      const float* more = other + (from - partial);
#pragma unroll
      for (int i = 0; i < kStreamWarps; ++i) low += more[i * 16], high += more[i * 16 + 8];
    }
    low *= factor;
    high *= factor;
    if constexpr (kOutput == Output::kGateUp) {
      StoreGateUp(a, expert, row, rows.low, low, high);
    } else if constexpr (kOutput == Output::kQkv) {
      StoreQkv(target, low, high);
    } else if constexpr (kOutput == Output::kBf16 || kOutput == Output::kChosen) {
      Bf16* out = static_cast<Bf16*>(a.out) + int64_t{row} * a.n;
      out[rows.low] = __float2bfloat16_rn(low + low_bias + __bfloat162float(low_before));
      if (rows.high >= 0)
        out[rows.high] = __float2bfloat16_rn(high + high_bias + __bfloat162float(high_before));
    } else {
      StoreResult<kOutput>(a, expert, row, rows.low, low);
      if (rows.high >= 0) StoreResult<kOutput>(a, expert, row, rows.high, high);
    }
  }
};

}  // namespace switchyard::kernels::cuda
