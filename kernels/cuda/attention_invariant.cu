// Attention of any mix of sequences over paged KV, for batch_invariant: the bits of a row are a
// function of its query and the keys that it sees, whatever else is in the step and however its
// sequence was cut into steps.
//
// Keys fall into parts at multiples of a size that follows from the row's position alone (He et al.
// 2025, "Defeating Nondeterminism in LLM Inference": a fixed size of parts, not a fixed number).
// Within a part a row goes over tiles of 64 keys (32 where heads are 256 wide) in order; then parts
// are added in order. Where every sequence has one row, blocks make the parts side by side and a
// second kernel adds them; else one block makes all parts of its rows, one after the other, by the
// same code and the same additions.
//
// A block takes one KV head, up to sixteen of the query heads that share it, and so many positions,
// a power of two, that those make at most 64 rows; positions are tiled at absolute multiples, so
// that all rows of a block have the same parts. Warps without rows only copy. Heads of 256 keep
// what earlier parts came to in local memory.

#include <algorithm>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_tile.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kThreads = 128, kRows = 64, kBlockHeads = 16;
constexpr int32_t kLeastPart = 256, kPartsOfSpan = 16;
constexpr int kMostParts = kPartsOfSpan + 1;  // the first may be cut off by the window

__host__ __device__ constexpr int KeysOf(int dim) { return dim > 128 ? 32 : 64; }

// How many keys a row at `position` sees, and a part's size for that: the next power of two that
// needs no more than sixteen parts. It changes at multiples of 4096 only, and so never within rows
// of one block.
__host__ __device__ inline int32_t PartKeys(int32_t span) {
  int32_t keys = kLeastPart;
  while (span > kPartsOfSpan * keys) keys *= 2;
  return keys;
}

// Keys [low, position] of a row, in parts [first, end) of `keys`.
struct Parts {
  int32_t low, keys, first, end;
};
__device__ inline Parts PartsOf(int32_t position, int32_t window) {
  Parts p;
  p.low = window > 0 ? max(0, position - window + 1) : 0;
  p.keys = PartKeys(position + 1 - p.low);
  p.first = p.low / p.keys;
  p.end = position / p.keys + 1;
  return p;
}

// Query heads of a block, and log2 of its positions.
struct BlockShape {
  int32_t groups, heads, shift;
};

// The rows of a block: query row i / heads, head i % heads.
struct Rows {
  int32_t row, position, count;  // the first query row; how many
  int32_t kv_head, first_head, heads;
  int64_t slot;
  __device__ int used() const { return count * heads; }
  __device__ int32_t PositionOf(int i) const { return position + min(i / heads, count - 1); }
};

__device__ inline bool RowsOfBlock(const AttentionArgs& a, const BlockShape& shape, int tile,
                                   Rows& out) {
  const int32_t first = a.rows.sequence_row[blockIdx.z], ratio = a.q_heads / a.kv_heads;
  const int32_t all = a.rows.sequence_row[blockIdx.z + 1] - first;
  if (all < 1) return false;
  out.slot = a.rows.slot[first];
  if (out.slot < 0) return false;
  const int32_t position = a.rows.position[first];
  const int32_t base = ((position >> shape.shift) + tile) << shape.shift;
  const int32_t begin = max(base, position);
  out.count = min(base + (1 << shape.shift), position + all) - begin;
  if (out.count < 1) return false;
  out.row = first + begin - position;
  out.position = begin;
  out.kv_head = blockIdx.x / shape.groups;
  const int32_t head = blockIdx.x % shape.groups * shape.heads;
  out.first_head = out.kv_head * ratio + head;
  out.heads = min(shape.heads, ratio - head);
  return true;
}

// Softmax over parts: the largest score (in log2) and the sum of what is there, and by how much
// that and a part that comes after it are to be multiplied.
struct PartSum {
  float largest = -INFINITY, sum = 0;
};
struct PartFactors {
  float keep, add;
};
__device__ inline PartFactors AddPart(PartSum& total, const PartSum& part) {
  const float largest = fmaxf(total.largest, part.largest);
  if (largest == -INFINITY) return {1, 0};
  const PartFactors f = {Exp2(total.largest - largest), Exp2(part.largest - largest)};
  total.largest = largest;
  total.sum = fmaf(f.add, part.sum, __fmul_rn(f.keep, total.sum));
  return f;
}
__device__ inline float AddElement(const PartFactors& f, float total, float part) {
  return fmaf(f.add, part, __fmul_rn(f.keep, total));
}
__device__ inline float LastFactor(const AttentionArgs& a, const PartSum& total, int32_t head) {
  if (a.sinks == nullptr) return __fdiv_rn(1.0f, total.sum);
  const float sink = __fmul_rn(a.sinks[head], kLog2E), largest = fmaxf(sink, total.largest);
  const float shrink = Exp2(total.largest - largest);
  return __fdiv_rn(shrink, fmaf(total.sum, shrink, Exp2(sink - largest)));
}

// Part results of (sequence, head, part): largest and sum, then the row.
template <int kDim, class T>
__device__ inline T* PartAt(T* scratch, int64_t sequence, int64_t heads, int64_t head, int parts,
                            int part) {
  return scratch + ((sequence * heads + head) * parts + part) * (kDim + 2);
}

// What a lane has of its two rows (g and g + 8 of the warp's sixteen), of all parts so far.
template <int kDim>
struct Totals {
  PartSum of[2];
  float out[kDim / 8][4] = {};

  __device__ void Add(RowState<kDim, 1>& part, float scale) {
    part.Finish(scale);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const PartFactors f = AddPart(of[h], {part.largest[0][h], part.sum[0][h]});
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
#pragma unroll
        for (int c = 2 * h; c < 2 * h + 2; ++c) {
          out[d][c] = AddElement(f, out[d][c], part.out[0][d][c]);
        }
      }
    }
    part = RowState<kDim, 1>();
  }
};

template <int kDim>
__device__ inline void StoreTotals(const AttentionArgs& a, const Rows& rows, int own,
                                   const Totals<kDim>& totals) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int i = own + lane / 4 + 8 * h;
    if (i >= rows.used()) continue;
    const int32_t head = rows.first_head + i % rows.heads;
    const float factor = LastFactor(a, totals.of[h], head);
    Bf16* to = static_cast<Bf16*>(a.out) +
               ((int64_t{rows.row} + i / rows.heads) * a.q_heads + head) * kDim + lane % 4 * 2;
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      *reinterpret_cast<uint32_t*>(to + d * 8) = Pack(__fmul_rn(totals.out[d][2 * h], factor),
                                                      __fmul_rn(totals.out[d][2 * h + 1], factor));
    }
  }
}

template <int kDim>
__device__ inline void StorePart(const AttentionArgs& a, const Rows& rows, int own,
                                 RowState<kDim, 1>& state, int parts, int part, float* scratch) {
  const int lane = threadIdx.x % kWarp;
  state.Finish(a.scale * kLog2E);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int i = own + lane / 4 + 8 * h;
    if (i >= rows.used()) continue;
    float* to = PartAt<kDim>(scratch, blockIdx.z, a.q_heads, rows.first_head + i, parts, part);
    if (lane % 4 == 0) {
      to[0] = state.largest[0][h];
      to[1] = state.sum[0][h];
    }
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      *reinterpret_cast<float2*>(to + 2 + d * 8 + lane % 4 * 2) = {state.out[0][d][2 * h],
                                                                   state.out[0][d][2 * h + 1]};
    }
  }
}

// Tiles [first, last] of keys that a block goes over; part_tiles: of each part.
struct TilesOfBlock {
  int32_t low, first, last, part_tiles;
};
template <int kDim>
__device__ inline bool TilesOf(const AttentionArgs& a, const Rows& rows, int parts,
                               TilesOfBlock& out) {
  constexpr int kKeys = KeysOf(kDim);
  const int32_t last = rows.position + rows.count - 1;
  const Parts own = PartsOf(last, a.window);
  out.low = a.window > 0 ? max(0, rows.position - a.window + 1) : 0;
  out.first = out.low / kKeys;
  out.last = last / kKeys;
  out.part_tiles = own.keys / kKeys;
  if (parts == 0) return true;
  const int32_t part = own.first + blockIdx.y;
  out.first = max(out.first, part * out.part_tiles);
  out.last = min(out.last, (part + 1) * out.part_tiles - 1);
  return part < own.end;
}

template <int kDim>
__device__ inline void CopyQueries(const AttentionArgs& a, const Rows& rows, uint4* q) {
  constexpr int kPieces = kDim / 8;
  const Bf16* from = static_cast<const Bf16*>(a.q);
  for (int i = threadIdx.x; i < kRows * kPieces; i += kThreads) {
    const int r = i / kPieces, piece = i % kPieces;
    const bool valid = r < rows.used();
    const int64_t at =
        valid ? (int64_t{rows.row} + r / rows.heads) * a.q_heads + rows.first_head + r % rows.heads
              : 0;
    CopyAsync(TilePiece<kDim>(q, r, piece), from + at * kDim + piece * 8, valid);
  }
}

template <int kDim, bool kFp8>
using AttendTiles = KeyTiles<kDim, KeysOf(kDim), kThreads, kFp8>;

// parts: 0: a block makes all parts of its rows. Else every sequence has one row, and blockIdx.y is
// the part, of so many.
template <int kDim, bool kFp8>
__global__ __launch_bounds__(kThreads, 2) void Attend(const AttentionArgs a, BlockShape shape,
                                                      int parts, float* scratch) {
  constexpr int kKeys = KeysOf(kDim);
  extern __shared__ uint4 shared[];
  uint4* q = shared;
  GridTrigger();
  GridWait();
  Rows rows;
  TilesOfBlock of_block;
  if (!RowsOfBlock(a, shape, parts > 0 ? 0 : gridDim.y - 1 - blockIdx.y, rows)) return;
  if (!TilesOf<kDim>(a, rows, parts, of_block)) return;
  CopyQueries<kDim>(a, rows, q);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, own = warp * 16;
  const auto load_query = [&](int k, int, uint32_t(&fragment)[4]) {
    LoadTiles(fragment, TilePiece<kDim>(q, own + lane % 16, k + lane / 16));
  };
  Sight sight[1][2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int32_t position = rows.PositionOf(own + lane / 4 + 8 * h);
    sight[0][h] = {a.window > 0 ? position - a.window : -1, position};
  }
  const bool has_rows = own < rows.used();
  const int32_t first_position = rows.PositionOf(own), last_position = rows.PositionOf(own + 15);
  const int32_t seen_from = a.window > 0 ? last_position - a.window + 1 : 0;  // by all of the warp
  RowState<kDim, 1> state;
  Totals<kDim> totals;
  const AttendTiles<kDim, kFp8> tiles = {a.kv,
                                         rows.slot,
                                         rows.kv_head,
                                         of_block.low,
                                         rows.position + rows.count,
                                         of_block.first,
                                         of_block.last,
                                         shared + kRows * (kDim / 8)};
  tiles.Each([&](int32_t i, uint4* keys, uint4* values) {
    if (!has_rows) return;
    const int32_t position = i * kKeys;
    if (position <= last_position) {
      const bool masked = position + kKeys - 1 > first_position || position < seen_from;
      AttendTile<kDim, kKeys, 1>(state, load_query, keys, values, position, masked, sight,
                                 a.scale * kLog2E);
    }
    const bool ends_part = i == of_block.last || (i + 1) % of_block.part_tiles == 0;
    if (parts == 0 && ends_part) totals.Add(state, a.scale * kLog2E);
  });
  if (!has_rows) return;
  if (parts > 0) {
    StorePart<kDim>(a, rows, own, state, parts, blockIdx.y, scratch);
  } else {
    StoreTotals<kDim>(a, rows, own, totals);
  }
}

// A block a head of a sequence.
template <int kDim>
__global__ __launch_bounds__(kDim) void AddParts(const AttentionArgs a, int parts,
                                                 const float* scratch) {
  GridTrigger();
  GridWait();
  const int sequence = blockIdx.y, head = blockIdx.x, d = threadIdx.x;
  const int32_t row = a.rows.sequence_row[sequence];
  if (a.rows.sequence_row[sequence + 1] - row != 1 || a.rows.slot[row] < 0) return;
  const Parts own = PartsOf(a.rows.position[row], a.window);
  PartSum total;
  float out = 0;
#pragma unroll 4
  for (int i = 0; i < own.end - own.first; ++i) {
    const float* part = PartAt<kDim>(scratch, sequence, a.q_heads, head, parts, i);
    out = AddElement(AddPart(total, {part[0], part[1]}), out, part[2 + d]);
  }
  static_cast<Bf16*>(a.out)[(int64_t{row} * a.q_heads + head) * kDim + d] =
      __float2bfloat16_rn(__fmul_rn(out, LastFactor(a, total, head)));
}

BlockShape ShapeOf(const AttentionArgs& a) {
  const int32_t ratio = a.q_heads / a.kv_heads, groups = (ratio + kBlockHeads - 1) / kBlockHeads;
  BlockShape shape = {groups, (ratio + groups - 1) / groups, 0};
  while ((2 << shape.shift) * shape.heads <= kRows) ++shape.shift;
  return shape;
}

// The most that a row has, by what the block table can hold.
int PartsOfTable(const AttentionArgs& a) {
  const int64_t context = int64_t{a.kv.table_stride} * a.kv.block_tokens;
  const int64_t span = a.window > 0 ? std::min<int64_t>(a.window, context) : context;
  return static_cast<int>(std::min<int64_t>((span + kLeastPart - 1) / kLeastPart, kPartsOfSpan)) +
         (a.window > 0 ? 1 : 0);
}

template <int kDim, bool kFp8>
OpError Run(const AttentionArgs& a, float* scratch, const LaunchContext& context) {
  constexpr size_t kPieces = size_t{kRows} * kDim / 8 + AttendTiles<kDim, kFp8>::kPieces;
  constexpr size_t kShared = kPieces * 16;
  static_assert(kShared <= 99 << 10);
  SWITCHYARD_RETURN_IF_OP_ERROR(AllowShared(Attend<kDim, kFp8>, kShared));
  const BlockShape shape = ShapeOf(a);
  const bool one_each = a.rows.longest <= 1;
  const int parts = one_each ? PartsOfTable(a) : 0;
  const int32_t longest = std::min(a.rows.longest, a.rows.rows), each = 1 << shape.shift;
  const int tiles = one_each ? parts : (longest + each - 2) / each + 1;
  SWITCHYARD_RETURN_IF_OP_ERROR(
      Launch(context, dim3(a.kv_heads * shape.groups, tiles, a.rows.sequences), kThreads, kShared,
             Attend<kDim, kFp8>, a, shape, parts, scratch));
  if (!one_each) return {};
  return Launch(context, dim3(a.q_heads, a.rows.sequences), kDim, 0, AddParts<kDim>, a, parts,
                scratch);
}

template <int kDim>
OpError Run(const AttentionArgs& a, float* scratch, const LaunchContext& context) {
  return a.kv.dtype == DType::kF8E4M3 ? Run<kDim, true>(a, scratch, context)
                                      : Run<kDim, false>(a, scratch, context);
}

}  // namespace

int64_t InvariantScratchFloats(int64_t sequences, int64_t q_heads, int64_t head_dim) {
  return HasAttentionTile(static_cast<int32_t>(head_dim))
             ? sequences * q_heads * kMostParts * (head_dim + 2)
             : 0;
}

OpError InvariantAttention(const AttentionArgs& args, float* scratch,
                           const LaunchContext& context) {
  switch (args.head_dim) {
    case 64:
      return Run<64>(args, scratch, context);
    case 128:
      return Run<128>(args, scratch, context);
    case 256:
      return Run<256>(args, scratch, context);
  }
  return {"no such head size"};
}

}  // namespace switchyard::kernels::cuda
