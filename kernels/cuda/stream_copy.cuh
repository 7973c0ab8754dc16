#pragma once

// The warp of a streamed product that copies: tiles of weights and their scales into a ring in
// shared memory.

#include "kernels/cuda/copy_barrier.cuh"
#include "kernels/cuda/stream_plan.h"
#include "kernels/cuda/weight_formats.cuh"
#include "kernels/cuda/weight_tile.cuh"

namespace switchyard::kernels::cuda {

struct StreamArgs {
  MatmulArgs m;
  StreamPlan plan;
};

// The expert whose matrix a block multiplies by, or kShared.
constexpr int32_t kShared = -1;
__device__ inline bool IsShared(const MatmulArgs& a, int32_t row) {
  return a.shared.every > 0 && (row + 1) % a.shared.every == 0;
}
__device__ inline int32_t ExpertOf(const MatmulArgs& a, int32_t row) {
  if (IsShared(a, row)) return kShared;
  const int32_t before = a.shared.every > 0 ? row / a.shared.every : 0;  // rows without an id
  return __ldcg(a.expert + (row - before));
}
// Of result row `row` of kChosen.
__device__ inline float WeightOf(const MatmulArgs& a, int32_t row) {
  return row >= a.rows ? 0.0f : IsShared(a, row) ? 1.0f : __ldcg(a.weights + row);
}
struct StreamWeights {
  const char *w, *scales, *zeros;
  int64_t expert;  // of those that begin there
};
__device__ inline StreamWeights WeightsOf(const MatmulArgs& a, int32_t expert) {
  const bool shared = expert == kShared;
  return {static_cast<const char*>(shared ? a.shared.w : a.w),
          static_cast<const char*>(shared ? a.shared.scales : a.scales),
          static_cast<const char*>(shared ? a.shared.zeros : a.zeros), shared ? 0 : expert};
}

// What a block multiplies a tile by, one after the other: one matrix, or with kChosen those of
// several experts, of which a lane knows one: `expert` is its own.
template <Output kOutput>
struct StreamPasses {
  static constexpr bool kChosen = kOutput == Output::kChosen;
  int32_t first = 0, end = 1, step = 1;
  int32_t expert;

  __device__ StreamPasses(const StreamPlan& p, int team, int32_t own) : expert(own) {
    if constexpr (kChosen) {
      first = p.split ? team : 0;
      step = p.split ? p.teams : 1;
      end = p.passes;
    }
  }
  // By all of a warp.
  __device__ int32_t Expert(int32_t pass) const {
    return kChosen ? __shfl_sync(kAllLanes, expert, pass) : expert;
  }
};

// The stages of the ring, one after the other, with the parity of their barriers.
struct StreamStage {
  int32_t stage = 0;
  uint32_t parity = 0;
  __device__ void Next(int32_t stages) {
    if (++stage == stages) stage = 0, parity ^= 1;
  }
};

// A team's part of a block: eight warps that multiply, and two that copy for them.
struct StreamTeam {
  int index;
  int32_t first_tile, stride;  // its tiles
  uint32_t shared;             // its part of shared memory
  uint32_t full, empty;        // a barrier for each stage
  uint32_t targets_ready;      // two barriers: where even and odd batches go is known

  __device__ CopyBarrier Full(int stage) const { return CopyBarrier(full + 8 * stage); }
  __device__ CopyBarrier TargetsReady(uint32_t batch) const {
    return CopyBarrier(targets_ready + batch % 2 * 8);
  }
  __device__ uint32_t Targets(const StreamPlan& p, uint32_t batch) const {
    return shared + p.targets_at + batch % 2 * kTargetBytes;
  }
  __device__ CopyBarrier Empty(int stage) const { return CopyBarrier(empty + 8 * stage); }
};

// Bytes from an address anywhere within 16 bytes on: whole pieces of 16.
__device__ inline int32_t PiecesOf(const char* from, int32_t bytes) {
  return static_cast<int32_t>((reinterpret_cast<uint64_t>(from) & 15) + bytes + 15) / 16;
}

// The last warps that multiply make a block's barriers, and those that copy wait for that.
constexpr int kStreamMakers = 5;
__device__ inline int BarriersThreads(int teams) {
  return (kStreamMakers + teams * kStreamCopiers) * kWarp;
}
__device__ inline void BarriersMade(int teams) {
  __threadfence_block();
  asm volatile("bar.arrive 4, %0;" ::"r"(BarriersThreads(teams)) : "memory");
}
__device__ inline void BarriersSync(int teams) {
  asm volatile("bar.sync 4, %0;" ::"r"(BarriersThreads(teams)) : "memory");
}

// A warp that copies the upper (half 0) or lower eight rows of each tile.
template <class Format, Output kOutput, bool kMany>
class StreamCopier {
 public:
  __device__ StreamCopier(const StreamArgs& s, int half, const StreamTeam& team,
                          CopyBarrier x_staged, int32_t expert)
      : s_(s),
        team_(team),
        passes_(s.plan, team.index, expert),
        x_staged_(x_staged),
        half_(half),
        lane_(threadIdx.x % kWarp) {}

  __device__ void Run() {
    const StreamPlan& p = s_.plan;
    for (int32_t tile = team_.first_tile; tile < p.tiles; tile += team_.stride) {
      const TileRows rows = RowsOfTile<kOutput>(s_.m, tile, lane_ % 8);
      const int64_t row = max(half_ == 0 ? rows.low : rows.high, 0);
      for (int32_t pass = passes_.first; pass < passes_.end; pass += passes_.step) {
        CopyPass(tile, passes_.Expert(pass), row);
      }
      ++of_batch_;
    }
    AwaitBarriers();
    LookUpFirst();
    asm volatile("cp.async.wait_all;" ::: "memory");
  }

 private:
  static_assert(kStreamStages <= kStreamBatch);
  static constexpr int kRowLanes = 16, kAtOnce = kWarp / kRowLanes;  // rows of an instruction

  __device__ void CopyPass(int32_t tile, int32_t expert, int64_t row) {
    const StreamPlan& p = s_.plan;
    FindRows(expert, row);
    for (int32_t at = 0; at < p.row_bytes; at += p.segment) {
      AwaitOldest();
      if (refill_) team_.Empty(stage_.stage).Wait(stage_.parity ^ 1);
      // The batch before the last one is stored: the ring holds no more tiles than a batch.
      if (of_batch_ == kStreamBatch) LookUp(tile), of_batch_ = 0;
      const int32_t bytes = min(p.segment, p.row_bytes - at);
      if (bytes == kStreamSegment) {
        CopyRows<true>(at, bytes);
      } else {
        CopyRows<false>(at, bytes);
      }
      if (Format::kWords > 0 && at == 0) CopyScales(expert, row, slot_);
      AwaitBarriers();
      team_.Full(stage_.stage).ArriveWhenCopied();
      stage_.Next(p.stages);
      refill_ |= stage_.stage == 0;
    }
    slot_ = slot_ + 1 < p.slots ? slot_ + 1 : 0;
  }

  // No more stages are on their way than the plan has.
  __device__ void AwaitOldest() {
    const StreamPlan& p = s_.plan;
    while (in_flight_ > 0 && in_flight_ >= MostInFlight()) {
      LookUpFirst();
      team_.Full(oldest_.stage).Wait(oldest_.parity);
      oldest_.Next(p.stages);
      --in_flight_;
    }
    ++in_flight_;
  }

  __device__ int32_t MostInFlight() {
    if (!staged_) staged_ = x_staged_.HasEnded(0);
    return staged_ ? s_.plan.in_flight : s_.plan.early_in_flight;
  }

  // The first copies are under way before the block's barriers are there.
  __device__ void AwaitBarriers() {
    if (met_) return;
    met_ = true;
    __syncwarp();  // each lane has copied as many scales as it had to
    BarriersSync(s_.plan.teams);
  }

  // Where the results of a batch go: the warps that multiply would wait for what is read on the
  // way. The step's slots and positions were there before its first kernel began.
  __device__ void LookUp(int32_t first) {
    if constexpr (kOutput == Output::kQkv && !kMany) {
      const int pair = half_ * kWarp + lane_;
      static_assert(kStreamBatch * 8 == kStreamCopiers * kWarp);
      const int64_t tile = first + int64_t{pair / 8} * team_.stride;
      QkvTarget target = {};
      if (tile < s_.plan.tiles && RowsOfTile<kOutput>(s_.m, tile, pair % 8).low >= 0) {
        target = TargetOfPair(s_.m, static_cast<int32_t>(tile * 8 + pair % 8), 0);
      }
      const uint32_t at = team_.Targets(s_.plan, batch_) + pair * sizeof(QkvTarget);
      StorePiece(at, reinterpret_cast<const uint4*>(&target)[0]);
      StorePiece(at + 16, reinterpret_cast<const uint4*>(&target)[1]);
      team_.TargetsReady(batch_).Arrive();
      ++batch_;
    }
  }
  __device__ void LookUpFirst() {
    if (batch_ == 0) LookUp(team_.first_tile);
  }

  // Where the lane's rows begin; `row`: of lane % 8.
  __device__ void FindRows(int32_t expert, int64_t row) {
    const StreamWeights weights = WeightsOf(s_.m, expert);
    const uint64_t own = reinterpret_cast<uint64_t>(weights.w) +
                         static_cast<uint64_t>(weights.expert * s_.m.n + row) * s_.plan.row_bytes;
#pragma unroll
    for (int i = 0; i < 8 / kAtOnce; ++i) {
      from_[i] = reinterpret_cast<const char*>(
                     __shfl_sync(kAllLanes, own, i * kAtOnce + lane_ / kRowLanes)) +
                 lane_ % kRowLanes * 16;
    }
  }

  template <bool kWhole>
  __device__ void CopyRows(int32_t at, int32_t bytes) const {
    const int32_t stride = s_.plan.segment + kStreamRowPad, column = lane_ % kRowLanes * 16;
    const int32_t first = stage_.stage * kStreamRows + half_ * 8 + lane_ / kRowLanes;
    uint32_t to = team_.shared + first * stride + column;
#pragma unroll
    for (int i = 0; i < 8 / kAtOnce; ++i, to += kAtOnce * stride) {
      const char* from = from_[i] + at;
#pragma unroll
      for (int k = 0; k < kStreamSegment; k += kRowLanes * 16) {
        if (kWhole || k + column < bytes) CopyPiece(to + k, from + k);
      }
    }
  }

  // Of the lane's row, but four lanes copy each.
  __device__ void CopyScales(int32_t expert, int64_t row, int32_t slot) const {
    const StreamPlan& p = s_.plan;
    const StreamWeights weights = WeightsOf(s_.m, expert);
    const int64_t element = Format::RowElement(s_.m, weights.expert, row);
    const int32_t to = slot * kStreamRows + half_ * 8 + lane_ % 8;
    CopyRow(weights.scales + element * Format::kScaleBytes, p.scale_bytes,
            team_.shared + p.scales_at + to * p.scale_stride);
    if (Format::kHasZeros && p.zero_bytes > 0) {
      CopyRow(weights.zeros + element, p.zero_bytes,
              team_.shared + p.zeros_at + to * p.zero_stride);
    }
  }
  __device__ void CopyRow(const char* own, int32_t bytes, uint32_t to) const {
    const char* from = reinterpret_cast<const char*>(reinterpret_cast<uint64_t>(own) & ~15ull);
    const int32_t end = PiecesOf(own, bytes) * 16;
    for (int32_t at = lane_ / 8 * 16; at < end; at += kWarp / 8 * 16) CopyPiece(to + at, from + at);
  }

  const StreamArgs& s_;
  const StreamTeam& team_;
  const StreamPasses<kOutput> passes_;
  const CopyBarrier x_staged_;
  const int half_, lane_;
  const char* from_[8 / kAtOnce];
  StreamStage stage_, oldest_;
  bool refill_ = false, met_ = false, staged_ = false;
  int32_t slot_ = 0, in_flight_ = 0, of_batch_ = 0;
  uint32_t batch_ = 0;  // the next one to be looked up
};

}  // namespace switchyard::kernels::cuda
