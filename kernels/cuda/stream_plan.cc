#include "kernels/cuda/stream_plan.h"

#include <algorithm>

#include "kernels/cuda/choose.h"

namespace switchyard::kernels::cuda {
namespace {

constexpr int64_t kPieceBytes = 16, kLanes = 32;
// A block has two teams, and x several rows, where there is room for so many stages of each.
constexpr int kEnoughStages = 3;
constexpr int64_t kChunkOfX = 16;
constexpr int64_t kAligned = 128;
constexpr int64_t kStatic = 1 << 10;

constexpr int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
constexpr int64_t Parts(int64_t n, int64_t unit) { return (n + unit - 1) / unit; }

// Columns of a piece of 16 bytes.
int64_t PieceColumns(DType type) {
  return type == DType::kBF16 ? 8 : type == DType::kF8E4M3 ? 16 : 32;
}

int64_t ScaleBytes(const Matrix& w) {
  switch (w.dtype) {
    case DType::kF8E4M3:
      return 4 * (w.group == 0 ? 1 : Parts(w.k, w.group));
    case DType::kInt4:
      return 2 * (w.k / w.group);
    case DType::kMxfp4:
      return w.k / 32;
    default:
      return 0;
  }
}

bool Whole(const void* data, int64_t row_bytes) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && row_bytes % 16 == 0;
}

// A row's bytes begin anywhere within 16.
int64_t AlignedStride(int64_t bytes) { return bytes == 0 ? 0 : RoundUp(bytes, 16) + 16; }

void PlaceShared(StreamPlan& p, const Matrix& w, int64_t rows, bool targets) {
  const int64_t chunk_pieces = 4 * PieceColumns(w.dtype) / 8;  // of x
  const int64_t chunks = int64_t{p.segments} * p.segment / (4 * kPieceBytes);
  p.x_pieces = static_cast<int32_t>(RoundUp(chunks * chunk_pieces, kLanes));
  // Tiles that lie in the ring at the same time, in part.
  p.slots = p.scale_bytes == 0 ? 0 : static_cast<int32_t>(Parts(p.stages - 1, p.segments)) + 1;
  int64_t at = 0;
  const auto place = [&](int32_t& offset, int64_t bytes) {
    offset = static_cast<int32_t>(at);
    at += RoundUp(bytes, kAligned);
  };
  // Neighbouring rows lie in other banks.
  p.x_stride = static_cast<int32_t>(p.x_pieces * kPieceBytes + (rows > 1 ? kStreamRowPad : 0));
  place(p.x_at, rows * p.passes * p.x_stride);
  const bool whole = w.dtype == DType::kF8E4M3 || w.dtype == DType::kInt4 ||
                     (w.dtype == DType::kMxfp4 && rows == 1);
  p.chunks_stride = static_cast<int32_t>(whole ? p.x_pieces / chunk_pieces * kChunkOfX : 0);
  place(p.chunks_at, rows * p.passes * p.chunks_stride);
  const int64_t teams_at = at;
  p.teams_at = static_cast<int32_t>(at);
  int32_t ring;
  p.stage_bytes = kStreamRows * (p.segment + kStreamRowPad);
  place(ring, int64_t{p.stages} * p.stage_bytes);
  place(p.scales_at, int64_t{p.slots} * kStreamRows * p.scale_stride);
  place(p.zeros_at, int64_t{p.slots} * kStreamRows * p.zero_stride);
  const int64_t sums = rows > 1 ? kStreamBatchMany * kStreamMany : kStreamBatch;  // of 16, a warp
  place(p.partial_at, sums * kStreamWarps * kStreamRows * static_cast<int64_t>(sizeof(float)));
  place(p.targets_at, targets && rows == 1 ? 2 * kTargetBytes : 0);
  for (int32_t* offset : {&p.scales_at, &p.zeros_at, &p.partial_at, &p.targets_at}) {
    *offset -= p.teams_at;
  }
  p.team_bytes = static_cast<int32_t>(at - teams_at);
  p.shared_bytes = static_cast<int32_t>(teams_at + p.teams * int64_t{p.team_bytes});
}

void FitShared(StreamPlan& p, const Matrix& w, int64_t rows, bool targets, int64_t limit) {
  for (p.teams = kStreamTeams; p.teams > 0; --p.teams) {
    const int least = p.teams > 1 || rows > 1 ? kEnoughStages : 2;
    for (p.stages = kStreamStages; p.stages >= least; --p.stages) {
      PlaceShared(p, w, rows, targets);
      if (p.shared_bytes <= limit) return;
    }
  }
  p.teams = 1;
}

// Blocks for all entries, and whether a block's teams share its tiles: as few rounds as may be.
void ShareOut(StreamPlan& p, int64_t entries, int multiprocessors) {
  const int64_t together = Parts(p.tiles, multiprocessors) * Parts(p.passes, p.teams);
  const int64_t apart = Parts(p.tiles, int64_t{multiprocessors} * p.teams) * p.passes;
  p.split = p.passes > 1 && together < apart;
  const int64_t most = p.split ? p.tiles : Parts(p.tiles, p.teams);  // of an entry
  p.blocks = static_cast<int32_t>(std::clamp<int64_t>(multiprocessors, entries, entries * most));
}

// What is on its way beyond what keeps the memory busy waits there, and x waits behind it. bf16
// needs more of it; so does qkv, whose rows are found by a division for each tile.
void SetInFlight(StreamPlan& p, bool bf16, bool targets) {
  p.early_in_flight = std::min(bf16 ? 2 : targets ? 4 : 1, p.stages);
  p.in_flight = std::min(bf16 || targets ? kStreamStages : 2, p.stages);
}

}  // namespace

int64_t StreamShared(int capability) { return SharedLimit(capability) - kStatic; }

StreamPlan PlanStream(const Matrix& w, int64_t rows, bool targets, int64_t entries, int capability,
                      int multiprocessors, int64_t passes) {
  StreamPlan p;
  p.passes = static_cast<int32_t>(passes);
  p.tiles = static_cast<int32_t>(Parts(w.n, kStreamRows));
  p.row_bytes = static_cast<int32_t>(w.k / PieceColumns(w.dtype) * kPieceBytes);
  // Whole segments cost less a byte than others.
  p.segment = std::min(kStreamSegment, static_cast<int>(RoundUp(p.row_bytes, 16 * kStreamWarps)));
  p.segments = static_cast<int32_t>(Parts(p.row_bytes, p.segment));
  p.scale_bytes = static_cast<int32_t>(ScaleBytes(w));
  p.scale_stride = static_cast<int32_t>(AlignedStride(p.scale_bytes));
  p.zero_bytes = static_cast<int32_t>(w.zeros != nullptr ? w.k / w.group : 0);
  p.zero_stride = static_cast<int32_t>(AlignedStride(p.zero_bytes));
  p.whole_scales = Whole(w.scales, p.scale_bytes) && Whole(w.zeros, p.zero_bytes);
  FitShared(p, w, rows, targets, StreamShared(capability));
  ShareOut(p, entries, multiprocessors);
  SetInFlight(p, w.dtype == DType::kBF16, targets);
  return p;
}

bool SumsEntries(const Matrix& w, int64_t entries, int capability, int multiprocessors) {
  if (entries > kMostPasses) return false;
  const StreamPlan one = PlanStream(w, 1, false, 1, capability, multiprocessors, entries);
  if (one.shared_bytes > StreamShared(capability)) return false;
  const StreamPlan each = PlanStream(w, 1, false, entries, capability, multiprocessors);
  return Parts(one.tiles, one.blocks) * entries <= Parts(each.tiles, each.blocks / entries);
}

}  // namespace switchyard::kernels::cuda
