#pragma once

// Product of weights of any format with one row of x, or with up to eight: decode of one sequence
// or of a few, and each chosen expert's row.
//
// A block has a multiprocessor for itself and two teams, which share x. A team streams tiles of 16
// weight rows through a ring of its own in shared memory: two warps copy, up to 1024 bytes of each
// row at a time, and look up where results go; eight warps multiply, each an eighth of the columns,
// on the tensor cores (stream_formats.cuh). They add up their sums in shared memory, for several
// tiles at once. Tiles go round the teams, so that all read in one place.
//
// kChosen: a tile is multiplied by the chosen experts of one row one after the other, each by its
// own row of x, and their sums are added up as the row weighs them: no kernel behind has to.
//
// The warps that copy never wait for the kernel in front. What they ask for delays x, which the
// others ask for once that kernel has ended: no more of a ring is on its way at a time than keeps
// the memory busy (StreamPlan::in_flight).
//
// A short product is a chain of delays, whatever its weights (o in int4, on an H200, of 4.9 us):
// its block begins 0.5 us after the one that had the multiprocessor before, asks for its first
// weights 1.0 later, and for x 0.8 to 1.2 later; x arrives and is staged in 1.4, is multiplied with
// the ring's tiles in 1.3, sums meet and are stored in 0.2. So what a warp does before it asks for
// anything counts most, and there every instruction takes eight cycles: code that runs once. Who
// multiplies asks for x first, and looks up where results go while it comes; who copies does not
// wait for barriers; the last warps make these.
//
// Tried: two blocks a multiprocessor, each with x of its own (staging twice: int4 1501 us for the
// 129 products of an 8B step, with teams 1420); all of it once more on what was there, before the
// wait, so that no instruction is fetched late (1649: it is not the fetching); the bulk copy engine
// for the weights, an instruction a row (60 cycles each, whatever their size: 53% of the read limit
// for int4, 89 for the head in bf16), and for x (the same, or slower by 2%); the first bytes of the
// next product's weights fetched into the second-level cache once one's own are there (1483 instead
// of 1501 at best; more of them delay whoever fetches); x by cp.async, which waits behind the
// ring's copies; three blocks a multiprocessor.

#include "kernels/cuda/stream_copy.cuh"
#include "kernels/cuda/stream_multiply.cuh"
#include "kernels/cuda/stream_result.cuh"

namespace switchyard::kernels::cuda {

// Barriers of a block: of every team's stages, and of x.
struct StreamBarriers {
  uint64_t full[kStreamTeams][kStreamStages], empty[kStreamTeams][kStreamStages];
  uint64_t targets_ready[kStreamTeams][2];
  uint64_t x_staged;
};

// By a few warps side by side, the last ones, which have the least of x to stage: one thread took
// 0.7 us for all. Branches tell them apart, since the instruction takes no address that differs by
// lane.
__device__ inline void MakeBarriers(StreamBarriers& b, int warp, int teams) {
  const auto init = [](uint64_t(&stages)[kStreamStages], int arrivals) {
#pragma unroll
    for (uint64_t& each : stages) CopyBarrier(each).Init(arrivals);
  };
  static_assert(kStreamTeams == 2 && kStreamMakers == 5);
  if (warp < 0) return;
  if (threadIdx.x % kWarp == 0) {
    if (warp == 0) init(b.full[0], kStreamCopiers * kWarp);
    if (warp == 1) init(b.full[1], kStreamCopiers * kWarp);
    if (warp == 2) init(b.empty[0], kStreamWarps);
    if (warp == 3) init(b.empty[1], kStreamWarps);
    if (warp == 4) {
      CopyBarrier(b.x_staged).Init(1);
#pragma unroll
      for (auto& team : b.targets_ready) {
        for (uint64_t& each : team) CopyBarrier(each).Init(kStreamCopiers * kWarp);
      }
    }
  }
  __syncwarp();
  BarriersMade(teams);
}

// kMany: x has several rows.
template <class Format, Output kOutput, bool kMany>
__global__ __launch_bounds__(kStreamTeams* kStreamTeamThreads,
                             1) void Stream(const __grid_constant__ StreamArgs s) {
  // A row's copies write whole sectors: 16 bytes off, they took 14% more time.
  extern __shared__ __align__(128) uint4 shared[];
  __shared__ StreamBarriers barriers;
  __shared__ float squares[kStreamTeams * kStreamWarps];
  const MatmulArgs& a = s.m;
  const StreamPlan& p = s.plan;
  const int warp = threadIdx.x / kWarp, copier = warp - p.teams * kStreamWarps;
  // A product of experts lets the next kernel begin only when its own wait is over: that one may
  // then read the choice of experts before its own.
  constexpr bool kChosen = kOutput == Output::kChosen;
  const bool experts = !kMany && !kChosen && a.expert != nullptr;
  const int32_t block = static_cast<int32_t>(blockIdx.x);
  const EntryBlocks own =
      experts ? BlocksOfEntry(block, p.blocks, a.rows) : EntryBlocks{0, 0, p.blocks};
  const int32_t row = own.entry;
  if (experts && !a.experts_known && !IsShared(a, row)) GridWait();
  const int32_t lane = threadIdx.x % kWarp;
  int32_t expert = 0;
  if (experts) expert = ExpertOf(a, row);
  if (kChosen && lane < a.rows) expert = ExpertOf(a, lane);

  const int index = copier >= 0 ? copier / kStreamCopiers : warp / kStreamWarps;
  const bool split = kChosen && p.split;
  const StreamTeam team = {index,
                           block - own.first + (split ? 0 : index * own.count),
                           own.count * (split ? 1 : p.teams),
                           SharedAddress(shared) + p.teams_at + index * p.team_bytes,
                           SharedAddress(barriers.full[index]),
                           SharedAddress(barriers.empty[index]),
                           SharedAddress(barriers.targets_ready[index])};
  if (copier >= 0) {  // reads nothing that the kernel in front writes
    GridTrigger();
    StreamCopier<Format, kOutput, kMany>(s, copier % kStreamCopiers, team,
                                         CopyBarrier(barriers.x_staged), expert)
        .Run();
    return;
  }
  if (!experts) GridTrigger();
  const int threads = p.teams * kStreamWarps * kWarp;
  if (a.norm != nullptr) {
    for (int i = (threads - 1 - threadIdx.x) * 32; i < a.k; i += threads * 32) Touch(a.norm + i);
  }
  MakeBarriers(barriers, warp - (threads / kWarp - kStreamMakers), p.teams);
  GridWait();
  if (experts) GridTrigger();
  StreamMultiplier<Format, kOutput, kMany> multiplier(s, reinterpret_cast<char*>(shared), team,
                                                      expert);
  StreamResult<kOutput, kMany> result;
  const float factor = multiplier.Stage(row, squares, [&] {
    result.LookUp(s, expert, index, team.first_tile, team.stride);
    result.LoadBefore(a, kMany ? result.Column() : row);
  });
  if (threadIdx.x == 0) CopyBarrier(barriers.x_staged).Arrive();
  multiplier.Run(row, factor, result);
}

template <class Format, Output kOutput>
OpError RunStream(const StreamArgs& s, const LaunchContext& context) {
  const bool many = s.m.expert == nullptr && s.m.rows > 1;
  auto kernel = Stream<Format, kOutput, false>;
  if constexpr (kOutput != Output::kChosen) {
    if (many) kernel = Stream<typename WithManyRows<Format>::Type, kOutput, true>;
  }
  SWITCHYARD_RETURN_IF_OP_ERROR(AllowShared(kernel, s.plan.shared_bytes));
  return Launch(context, s.plan.blocks, s.plan.teams * kStreamTeamThreads, s.plan.shared_bytes,
                kernel, s);
}

template <class Format>
OpError RunStream(const MatmulArgs& a, const LaunchContext& context) {
  const Matrix w = {a.w, a.dtype, a.n, a.k, a.batch, a.scales, a.zeros, a.group};
  const bool experts = a.expert != nullptr;
  const bool chosen = a.output == Output::kChosen;
  const StreamArgs s = {a, PlanStream(w, experts ? 1 : a.rows, a.output == Output::kQkv,
                                      experts && !chosen ? a.rows : 1, context.capability,
                                      context.multiprocessors, chosen ? a.rows : 1)};
  return ForOutput<Output::kBf16, Output::kF32, Output::kGateUp, Output::kQkv, Output::kChosen>(
      a.output,
      [&](auto output) { return RunStream<Format, decltype(output)::value>(s, context); });
}

}  // namespace switchyard::kernels::cuda
