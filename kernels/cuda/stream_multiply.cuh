#pragma once

// The warps of a streamed product that multiply.

#include "kernels/cuda/keep.cuh"
#include "kernels/cuda/stream_copy.cuh"
#include "kernels/cuda/stream_formats.cuh"
#include "kernels/cuda/stream_result.cuh"

namespace switchyard::kernels::cuda {

// Barriers of the warps that multiply: of all of a block, of a team.
__device__ inline void MultipliersSync(int threads) {
  asm volatile("bar.sync 1, %0;" ::"r"(threads) : "memory");
}
__device__ inline void TeamSync(int team) {
  asm volatile("bar.sync %0, %1;" ::"r"(2 + team), "n"(kStreamWarps * kWarp) : "memory");
}

// The scales and zeros of a lane's two rows of one tile, in shared memory.
template <class Format>
struct TileScales {
  uint32_t scale[2] = {}, zero[2] = {};

  // Those of row g of a slot, and of row g + 8.
  __device__ TileScales(const StreamPlan& p, uint32_t team, int32_t slot, int g) {
#pragma unroll
    for (int half = 0; half < 2 && Format::kWords > 0; ++half) {
      const int32_t at = slot * kStreamRows + half * 8 + g;
      scale[half] = team + p.scales_at + at * p.scale_stride;
      if (Format::kHasZeros) zero[half] = team + p.zeros_at + at * p.zero_stride;
    }
  }
  // Rows are copied as they lie within 16 bytes.
  __device__ void MoveTo(const MatmulArgs& a, int32_t expert, const TileRows& rows) {
    const StreamWeights weights = WeightsOf(a, expert);
#pragma unroll
    for (int half = 0; half < 2 && Format::kWords > 0; ++half) {
      const int64_t element =
          Format::RowElement(a, weights.expert, max(half == 0 ? rows.low : rows.high, 0));
      scale[half] +=
          (reinterpret_cast<uint64_t>(weights.scales) + element * Format::kScaleBytes) & 15;
      if (Format::kHasZeros)
        zero[half] += (reinterpret_cast<uint64_t>(weights.zeros) + element) & 15;
    }
  }

  // Number `group` of them.
  __device__ ScaleWords At(int half, uint32_t group, bool zeros) const {
    ScaleWords words;
    if constexpr (Format::kWords == 0) return words;
    words.scale = LoadWord<Format::kScaleBytes>(scale[half] + group * Format::kScaleBytes);
    if constexpr (Format::kHasZeros) words.zero = zeros ? LoadWord<1>(zero[half] + group) : 8;
    return words;
  }
};

// What a lane multiplies a chunk by, in pieces of 16 bytes: zeros where they are not `wanted`.
struct XOfChunk {
  uint32_t at;
  __device__ uint4 operator()(int i) const { return LoadPiece(at + i * 64); }
  __device__ uint4 operator()(int i, bool wanted) const { return LoadPieceIf(wanted, at + i * 64); }
};

template <class Format, Output kOutput, bool kMany>
class StreamMultiplier {
 public:
  __device__ StreamMultiplier(const StreamArgs& s, char* shared, const StreamTeam& team,
                              int32_t expert)
      : s_(s),
        shared_(shared),
        team_(team),
        passes_(s.plan, team.index, expert),
        warp_(threadIdx.x / kWarp % kStreamWarps),
        g_(threadIdx.x % kWarp / 4),
        t_(threadIdx.x % 4),
        row_(Kept(team.shared + g_ * (s.plan.segment + kStreamRowPad) + warp_ * 64 + t_ * 16)),
        x_(Kept(Address(s.plan.x_at + XRow(g_ / Format::kColumns) * s.plan.x_stride +
                        warp_ * 64 * kPieces + g_ % 2 * Format::kPlaneBytes + t_ * 16))),
        chunks_{Kept(ChunkAddress(kMany ? t_ * 2 / Format::kColumns : 0)),
                kMany ? Kept(ChunkAddress((t_ * 2 + 1) / Format::kColumns)) : 0},
        full_(Kept(team.full)),
        empty_(Kept(team.empty)) {}

  // x into shared memory, by all teams, of several rows each by its part of the threads; what the
  // thread's results are multiplied by. meanwhile() is called while x is on its way.
  template <class Meanwhile>
  __device__ float Stage(int32_t row, float* squares, const Meanwhile& meanwhile) {
    const MatmulArgs& a = s_.m;
    const StreamPlan& p = s_.plan;
    const int threads = p.teams * kStreamWarps * kWarp;
    if constexpr (kOutput == Output::kChosen) {
      StageChosen(threads, meanwhile);
      return Format::kResult;
    }
    const int each = threads / (!kMany ? 1 : a.rows > 4 ? 8 : a.rows > 2 ? 4 : 2);
    const int of_part = kMany ? static_cast<int>(threadIdx.x) / each : 0;
    if (!kMany || of_part < a.rows) {
      const int64_t from = InputRow(a, kMany ? of_part : row);
      const StagedRows<false, Meanwhile> staged = {
          reinterpret_cast<const uint4*>(a.x + from * a.k),
          reinterpret_cast<const float4*>(a.norm),
          static_cast<int>(a.k / 8),
          p.x_pieces,
          static_cast<int>(threadIdx.x) - of_part * each,
          each,
          reinterpret_cast<uint4*>(shared_ + p.x_at + of_part * p.x_stride),
          meanwhile};
      const float own = WarpSum(Format::Stage(
          staged, reinterpret_cast<ChunkOfX*>(shared_ + p.chunks_at + of_part * p.chunks_stride)));
      if (threadIdx.x % kWarp == 0) squares[threadIdx.x / kWarp] = own;
    } else {
      meanwhile();
    }
    MultipliersSync(threads);
    float factor = Format::kResult;
    if (a.norm != nullptr) {
      const int first = kMany ? XRow(StreamResult<kOutput, kMany>::Column()) * (each / kWarp) : 0;
      float total = 0;
      for (int i = 0; i < each / kWarp; ++i) total += squares[first + i];
      factor *= rsqrtf(__fdividef(total, static_cast<float>(static_cast<int32_t>(a.k))) + a.eps);
    }
    return factor;
  }

  // The sums that a team's warps leave, of a batch of tiles.
  __device__ float* Partial(int team) const {
    const StreamPlan& p = s_.plan;
    return reinterpret_cast<float*>(shared_ + p.teams_at + team * p.team_bytes + p.partial_at);
  }

  __device__ void Run(int32_t row, float factor, StreamResult<kOutput, kMany>& result) {
    const StreamPlan& p = s_.plan;
    float* partial = Partial(team_.index);
    int32_t slot = 0, of_batch = 0;
    [[maybe_unused]] uint32_t batch = 0;
    for (int32_t tile = team_.first_tile; tile < p.tiles; tile += team_.stride) {
      MultiplyTileOf(tile, slot, partial + (of_batch * kStreamWarps + warp_) * kResultColumns * 16);
      const bool last = tile + team_.stride >= p.tiles;
      if (++of_batch < StreamResult<kOutput, kMany>::kBatch && !last) continue;
      Sync();
      if constexpr (kOutput == Output::kQkv && !kMany) {
        team_.TargetsReady(batch).Wait(batch / 2 % 2);
        result.TakeTarget(team_.Targets(s_.plan, batch++));
      }
      result.Store(s_.m, passes_.expert, kMany ? result.Column() : row, partial,
                   p.split ? Partial(1) : nullptr, factor);
      if (last) return;
      result.LookUp(s_, passes_.expert, team_.index, tile + team_.stride, team_.stride);
      result.LoadBefore(s_.m, kMany ? result.Column() : row);
      of_batch = 0;
      Sync();
    }
  }

 private:
  static constexpr int kPieces = Format::kLaneK / 8;  // of x, for one of the weights
  static constexpr int kResultColumns = StreamResult<kOutput, kMany>::kColumns;

  // Of those whose sums lie together.
  __device__ void Sync() const {
    if (kOutput == Output::kChosen && s_.plan.split) {
      MultipliersSync(s_.plan.teams * kStreamWarps * kWarp);
    } else {
      TeamSync(team_.index);
    }
  }

  template <class Meanwhile>
  __device__ void StageChosen(int threads, const Meanwhile& meanwhile) {
    const StreamPlan& p = s_.plan;
    const StagedRows<true, Meanwhile> staged = {reinterpret_cast<const uint4*>(s_.m.x),
                                                nullptr,
                                                static_cast<int>(s_.m.k / 8),
                                                p.passes * p.x_pieces,
                                                static_cast<int>(threadIdx.x),
                                                threads,
                                                reinterpret_cast<uint4*>(shared_ + p.x_at),
                                                meanwhile,
                                                p.x_pieces};
    (void)Format::Stage(staged, reinterpret_cast<ChunkOfX*>(shared_ + p.chunks_at));
    weight_ = WeightOf(s_.m, threadIdx.x % kWarp);
    MultipliersSync(threads);
  }

  __device__ void MultiplyTileOf(int32_t tile, int32_t& slot, float* partial) {
    float sum[1][4] = {};
    if constexpr (kOutput == Output::kChosen) {
      for (int32_t pass = passes_.first; pass < passes_.end; pass += passes_.step) {
        float of_pass[1][4] = {};
        MultiplyPass(tile, slot, pass, of_pass);
        const float weight = __shfl_sync(kAllLanes, weight_, pass);
        sum[0][0] = fmaf(weight, of_pass[0][0], sum[0][0]);
        sum[0][2] = fmaf(weight, of_pass[0][2], sum[0][2]);
      }
    } else {
      MultiplyPass(tile, slot, 0, sum);
    }
    LeaveSums(sum[0], partial);
  }

  // Adds a tile's products with one expert's row, or with all of x.
  __device__ void MultiplyPass(int32_t tile, int32_t& slot, int32_t pass, float (&sum)[1][4]) {
    const StreamPlan& p = s_.plan;
    TileScales<Format> scales(p, team_.shared, slot, g_);
    slot = slot + 1 < p.slots ? slot + 1 : 0;
    if (Format::kWords > 0 && !p.whole_scales) {
      scales.MoveTo(s_.m, passes_.Expert(pass), RowsOfTile<kOutput>(s_.m, tile, g_));
    }
    for (int32_t at = 0; at < p.row_bytes; at += p.segment) {
      CopyBarrier(full_ + 8 * stage_.stage).Wait(stage_.parity);
      const int32_t bytes = min(p.segment, p.row_bytes - at);
      if (bytes == kStreamSegment) {
        MultiplySegment<true>(at, bytes - warp_ * 64, pass, scales, sum);
      } else {
        MultiplySegment<false>(at, bytes - warp_ * 64, pass, scales, sum);
      }
      stage_.Next(p.stages);
    }
  }

  __device__ void LeaveSums(const float (&sum)[4], float* partial) const {
    const auto leave = [&](int column, float low, float high) {
      partial[column * 16 + g_] = low, partial[column * 16 + g_ + 8] = high;
    };
    if constexpr (Format::kLaneSums) {
      const auto add = [](float a, float b) { return a + b; };
      const float low = OverLanes<4>(sum[0], add), high = OverLanes<4>(sum[2], add);
      if (t_ == 0) leave(0, low, high);
    } else if constexpr (!kMany) {
      if (t_ == 0) leave(0, sum[0], sum[2]);
    } else if constexpr (Format::kColumns == 2) {
      leave(t_, sum[0], sum[2]);
    } else {
      leave(2 * t_, sum[0], sum[2]);
      leave(2 * t_ + 1, sum[1], sum[3]);
    }
  }

  // The warp's columns of a stage, 64 bytes of each row at a time; `bytes` from its first one on.
  template <bool kWhole>
  __device__ void MultiplySegment(uint32_t at, int32_t bytes, int32_t pass,
                                  const TileScales<Format>& scales, float (&sum)[1][4]) {
    constexpr int kChunks = kStreamSegment / kStreamWarps / 64, kStep = kStreamWarps * 64;
    const uint32_t row = row_ + stage_.stage * s_.plan.stage_bytes;
    const uint32_t x = x_ + pass * s_.plan.x_stride + at * kPieces;
    const uint32_t of_x = pass * s_.plan.chunks_stride + at / 64 * sizeof(ChunkOfX);
    const uint32_t first = at / 64 + warp_;  // chunk of the row
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const bool inside = kWhole || c * kStep + t_ * 16 < bytes;
      uint4 low, high;
      ScaleWords low_scale, high_scale;
      if (!kWhole) low = high = make_uint4(0, 0, 0, 0);
      if (inside) {
        low = LoadPiece(row + c * kStep);
        high = LoadPiece(row + c * kStep + s_.plan.stage_bytes / 2);
      }
      if (Format::kWords > 0 && (kWhole || c * kStep < bytes)) {
        const uint32_t lane = Format::kChunkScale || !inside ? 0 : t_;
        const uint32_t column = ((first + c * kStreamWarps) * 4 + lane) * Format::kLaneK;
        const uint32_t group = column >> s_.m.group_shift;
        low_scale = scales.At(0, group, s_.plan.zero_bytes > 0);
        high_scale = scales.At(1, group, s_.plan.zero_bytes > 0);
      }
      if (c + 1 == kChunks) {
        __syncwarp();
        if (threadIdx.x % kWarp == 0) CopyBarrier(empty_ + 8 * stage_.stage).Arrive();
      }
      if (!kWhole && c * kStep >= bytes) continue;
      const uint32_t chunk = of_x + c * kStreamWarps * static_cast<int>(sizeof(ChunkOfX));
      Format::template Multiply<kMany>(low, high, low_scale, high_scale,
                                       ChunksOfLane{chunks_.first + chunk, chunks_.second + chunk},
                                       XOfChunk{x + c * kStep * kPieces}, sum);
    }
  }

  // A row of x that is there.
  __device__ int XRow(int column) const { return kMany ? min(column, s_.m.rows - 1) : 0; }
  __device__ uint32_t ChunkAddress(int column) const {
    return Address(s_.plan.chunks_at + XRow(column) * s_.plan.chunks_stride +
                   warp_ * static_cast<int>(sizeof(ChunkOfX)));
  }
  __device__ uint32_t Address(int32_t offset) const { return SharedAddress(shared_) + offset; }

  const StreamArgs& s_;
  char* const shared_;
  const StreamTeam& team_;
  const StreamPasses<kOutput> passes_;
  float weight_ = 0;  // of the lane's pass, with kChosen
  const int warp_, g_, t_;
  const uint32_t row_;         // the lane's first piece of the first stage
  const uint32_t x_;           // what it multiplies
  const ChunksOfLane chunks_;  // the warp's first ones
  const uint32_t full_, empty_;
  StreamStage stage_;
};

}  // namespace switchyard::kernels::cuda
