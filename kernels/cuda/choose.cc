#include "kernels/cuda/choose.h"

#include <algorithm>
#include <iterator>

#include "kernels/cuda/stream_plan.h"

namespace switchyard::kernels::cuda {
namespace {

constexpr uint32_t Bit(DType type) { return 1u << static_cast<int>(type); }
constexpr uint32_t Bit(ExpertRows rows) { return static_cast<uint32_t>(rows); }
constexpr uint32_t kBf16 = Bit(DType::kBF16), kFp8 = Bit(DType::kF8E4M3);
constexpr uint32_t kFourBits = Bit(DType::kInt4) | Bit(DType::kMxfp4);
constexpr uint32_t kAll = kBf16 | kFp8 | kFourBits | Bit(DType::kF32) | Bit(DType::kF16);
constexpr uint32_t kNoExperts = Bit(ExpertRows::kNone);
constexpr uint32_t kOne = kNoExperts | Bit(ExpertRows::kEach);
constexpr uint32_t kAnyRows = kOne | Bit(ExpertRows::kGrouped);
constexpr int64_t kRouteFewMostShared = 96 << 10;  // beside what its blocks keep of their own
constexpr int64_t kNoEnd = int64_t{1} << 40;
// Two stages of the ring and the partial sums; a column has its x and a part of the scales.
constexpr int64_t kStreamShared = 48 << 10;
// The widest several rows of x by which quantized weights are streamed: every block stages all of
// them, and few tiles make up for it. On an H200 in layers of 4096 and 14336, and of 8192 and
// 28672: 14336 with 2 rows is 5 to 6% slower than by the batched product, with 3 a third to a half.
constexpr int64_t kStreamWidth = 8192;

// Rows of x count for each expert alone where every row has its own. Shared memory is what the
// largest instance asks for; quant_tile.cuh and quant_batch.cuh assert theirs.
constexpr ProductVariant kProducts[] = {
    // kernel, name, types, multiple and most of k, rows, experts, shifts, norms, picks, halves,
    // qkv_rows, shared, a column, invariant, lowest capability
    {ProductKernel::kStream, "stream", kBf16, 8, kNoEnd, 1, kStreamMany, kOne, false, true, true,
     false, kStreamMany, kStreamShared, 2, false, 80},
    {ProductKernel::kStream, "stream", kFp8, 16, kNoEnd, 1, 1, kOne, true, true, true, false, 1,
     kStreamShared, 3, false, 80},
    {ProductKernel::kStream, "stream", kFourBits, 32, kNoEnd, 1, 1, kOne, true, true, true, false,
     1, kStreamShared, 3, false, 80},
    {ProductKernel::kStream, "stream", kFp8, 16, kStreamWidth, 2, kStreamManyQuantized, kNoExperts,
     true, true, true, false, kStreamManyQuantized, kStreamShared, 3, false, 80},
    {ProductKernel::kStream, "stream", kFourBits, 32, kStreamWidth, 2, kStreamManyQuantized,
     kNoExperts, true, true, true, false, kStreamManyQuantized, kStreamShared, 3, false, 80},
    {ProductKernel::kBatch, "batch", kBf16, 8, kNoEnd, 1, 128, kNoExperts, false, false, true,
     false, 0, 99 << 10, 0, true, 80},
    {ProductKernel::kTile, "tile", kBf16, 8, kNoEnd, 1, kNoEnd, kAnyRows, false, false, true, false,
     0, 96 << 10, 0, true, 80},
    {ProductKernel::kQuantBatch, "quant batch", kFp8, 16, kNoEnd, 1, 64, kNoExperts, true, false,
     false, true, 64, 99 << 10, 0, false, 80},
    {ProductKernel::kQuantBatch, "quant batch", kFourBits, 32, kNoEnd, 1, 64, kNoExperts, true,
     false, false, false, 64, 99 << 10, 0, false, 80},
    {ProductKernel::kQuantTile, "quant tile", kFp8, 16, kNoEnd, 1, kNoEnd, kAnyRows, true, false,
     true, false, 0, 99 << 10, 0, true, 80},
    {ProductKernel::kQuantTile, "quant tile", kFourBits, 32, kNoEnd, 1, kNoEnd, kAnyRows, true,
     false, true, false, 0, 99 << 10, 0, true, 80},
    {ProductKernel::kGeneric, "generic", kAll, 1, kNoEnd, 1, kNoEnd, kAnyRows, false, false, true,
     false, 0, 0, 0, true, 80},
};

constexpr AttentionVariant kAttention[] = {
    {AttentionKernel::kTile, "tile", 64, 64, false, 80},
    {AttentionKernel::kTile, "tile", 128, 128, false, 80},
    {AttentionKernel::kTile, "tile", 256, 256, false, 80},
    {AttentionKernel::kInvariant, "invariant", 64, 64, true, 80},
    {AttentionKernel::kInvariant, "invariant", 128, 128, true, 80},
    {AttentionKernel::kInvariant, "invariant", 256, 256, true, 80},
    {AttentionKernel::kGeneric, "generic", 1, 1024, true, 80},
};

struct SharedRow {
  int capability;
  int64_t bytes;
};
// What a block may have, from CUDA's table of compute capabilities; the last one at or below.
constexpr SharedRow kShared[] = {{80, 163 << 10}, {86, 99 << 10},   {87, 163 << 10}, {89, 99 << 10},
                                 {90, 227 << 10}, {100, 227 << 10}, {120, 99 << 10}};

bool Shifts(const ProductShape& s) {
  return (s.group & (s.group - 1)) == 0 && s.n < int64_t{1} << 31 &&
         s.n * s.k * s.batch < int64_t{1} << 40;
}

// Scales of a row lie in shared memory with it: how many depends on the groups. Zeros, if there are
// any, as well.
bool Streams(int capability, const ProductShape& s) {
  static const char kSome = 0;
  Matrix w = {&kSome, s.dtype, s.n, s.k, s.batch, &kSome, nullptr, s.group};
  if (s.dtype == DType::kInt4) w.zeros = &kSome;
  const int64_t rows = s.experts == ExpertRows::kNone ? s.rows : 1;
  return PlanStream(w, rows, s.qkv, 1, capability, 1).shared_bytes <= StreamShared(capability);
}

bool Takes(const ProductVariant& v, int capability, const ProductShape& s) {
  const int64_t rows = s.experts == ExpertRows::kEach ? 1 : s.rows;
  return capability >= v.lowest_capability && (v.types & Bit(s.dtype)) != 0 &&
         (v.multiple_k == 1 || s.aligned) && s.k % v.multiple_k == 0 && s.k <= v.most_k &&
         (s.k > 0 || v.kernel == ProductKernel::kGeneric) && rows >= v.least_rows &&
         rows <= v.most_rows && (!s.qkv || rows <= v.qkv_rows) &&
         (v.experts & Bit(s.experts)) != 0 && (!v.shifts || Shifts(s)) &&
         (!s.invariant || v.invariant) && (!s.norm || v.norms) && (!s.picks || v.picks) &&
         (!s.halves || v.halves) &&
         (v.kernel != ProductKernel::kStream || Streams(capability, s)) &&
         v.shared + v.shared_a_column * s.k <= SharedLimit(capability);
}

}  // namespace

int64_t SharedLimit(int capability) {
  int64_t bytes = 48 << 10;
  for (const SharedRow& row : kShared) {
    if (row.capability <= capability) bytes = row.bytes;
  }
  return bytes;
}

int64_t RouteFewShared(int64_t width, int64_t rows) {
  return (rows == 1 ? 1 : kRouteFewRowsOfBlock) * width * 2;
}

bool RoutesFew(DType router, int64_t width, int64_t rows) {
  // For every number of rows the same, so that it does not decide by which kernel they are routed.
  return rows <= kRouteFewRows && (router == DType::kBF16 || router == DType::kF32) && width > 0 &&
         width % 8 == 0 && RouteFewShared(width, kRouteFewRowsOfBlock) <= kRouteFewMostShared;
}

bool HasProgrammaticLaunch(int capability) { return capability >= 90; }

const ProductVariant* ChooseProduct(int capability, const ProductShape& shape) {
  const auto* found =
      std::find_if(std::begin(kProducts), std::end(kProducts),
                   [&](const ProductVariant& v) { return Takes(v, capability, shape); });
  return found == std::end(kProducts) ? nullptr : found;
}

bool NormsItself(int capability, const ProductShape& shape) {
  const ProductVariant* v = ChooseProduct(capability, shape);
  return v != nullptr && v->norms && shape.experts == ExpertRows::kNone;
}

const AttentionVariant* ChooseAttention(int capability, int32_t head_dim, bool invariant) {
  const auto* found =
      std::find_if(std::begin(kAttention), std::end(kAttention), [&](const AttentionVariant& v) {
        return capability >= v.lowest_capability && head_dim >= v.least_head &&
               head_dim <= v.most_head && (!invariant || v.invariant);
      });
  return found == std::end(kAttention) ? nullptr : found;
}

}  // namespace switchyard::kernels::cuda
