#include "kernels/cuda/stream_plan.h"

#include <algorithm>

#include "kernels/cuda/choose.h"

namespace switchyard::kernels::cuda {
namespace {

constexpr int64_t kPieceBytes = 16, kLanes = 32;
// Blocks of a multiprocessor, and what one may have.
constexpr int64_t kResident = 2, kSharedOfTwo = 112 << 10;
// From this width on x comes by the bulk copy engine: eight pieces a thread by plain loads wait for
// one another, and behind the weights. Where there is room for both of x's forms.
constexpr int64_t kWide = 8192;
constexpr int kBulkCapability = 90;
constexpr int64_t kBulkShared = 200 << 10;
constexpr int64_t kChunkOfX = 16;
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

// A row's bytes begin anywhere within 16.
int64_t AlignedStride(int64_t bytes) { return bytes == 0 ? 0 : RoundUp(bytes, 16) + 16; }

void PlaceShared(StreamPlan& p, const Matrix& w, bool bulk) {
  const int64_t chunk_pieces = 4 * PieceColumns(w.dtype) / 8;  // of x
  const int64_t chunks = int64_t{p.segments} * p.segment / (4 * kPieceBytes);
  p.x_pieces = static_cast<int32_t>(RoundUp(chunks * chunk_pieces, kLanes));
  // Tiles that lie in the ring at the same time, in part.
  p.slots = p.scale_bytes == 0 ? 0 : static_cast<int32_t>(Parts(p.stages - 1, p.segments)) + 1;
  int64_t at = int64_t{p.stages} * kStreamRows * (p.segment + kStreamRowPad);
  const auto place = [&](int32_t& offset, int64_t bytes) {
    offset = static_cast<int32_t>(at);
    at += RoundUp(bytes, 16);
  };
  if (bulk) place(p.raw_at, w.k * 2);
  place(p.scales_at, int64_t{p.slots} * kStreamRows * p.scale_stride);
  place(p.zeros_at, int64_t{p.slots} * kStreamRows * p.zero_stride);
  place(p.x_at, int64_t{p.x_pieces} * kPieceBytes);
  const bool half = w.dtype == DType::kF8E4M3 || w.dtype == DType::kInt4;
  place(p.chunks_at, half ? p.x_pieces / chunk_pieces * kChunkOfX : 0);
  place(p.partial_at, int64_t{kStreamBatch} * kStreamWarps * kStreamRows * sizeof(float));
  p.shared_bytes = static_cast<int32_t>(at);
}

void FitShared(StreamPlan& p, const Matrix& w, bool bulk, int64_t limit) {
  p.stages = kStreamStages;
  PlaceShared(p, w, bulk);
  while (p.stages > 2 && p.shared_bytes > limit) {
    --p.stages;
    PlaceShared(p, w, bulk);
  }
}

}  // namespace

int64_t StreamShared(int capability) { return SharedLimit(capability) - kStatic; }

StreamPlan PlanStream(const Matrix& w, int64_t entries, int capability, int multiprocessors) {
  StreamPlan p;
  p.tiles = static_cast<int32_t>(Parts(w.n, kStreamRows));
  p.row_bytes = static_cast<int32_t>(w.k / PieceColumns(w.dtype) * kPieceBytes);
  p.segments = static_cast<int32_t>(Parts(p.row_bytes, kStreamSegment));
  p.segment = static_cast<int32_t>(RoundUp(Parts(p.row_bytes, p.segments), 16 * kStreamWarps));
  p.segments = static_cast<int32_t>(Parts(p.row_bytes, p.segment));
  p.scale_bytes = static_cast<int32_t>(ScaleBytes(w));
  p.scale_stride = static_cast<int32_t>(AlignedStride(p.scale_bytes));
  p.zero_bytes = static_cast<int32_t>(w.zeros != nullptr ? w.k / w.group : 0);
  p.zero_stride = static_cast<int32_t>(AlignedStride(p.zero_bytes));
  const bool bulk =
      w.k > kWide && capability >= kBulkCapability && SharedLimit(capability) >= kBulkShared;
  FitShared(p, w, bulk, std::min(kSharedOfTwo, StreamShared(capability)));
  const int64_t share = kResident * multiprocessors / std::max<int64_t>(entries, 1);
  p.blocks = static_cast<int32_t>(std::clamp<int64_t>(share, 1, p.tiles));
  return p;
}

}  // namespace switchyard::kernels::cuda
