// Attention of sequences with several rows this step, over paged KV (Dao et al. 2022).
//
// A block takes 128 rows of one query head, a warp 32 of them (64 and 16 where heads are 256 wide:
// registers); keys and values arrive by cp.async in tiles of 64 (of 32 where heads are 256 wide),
// one tile ahead. fp8 tiles are widened in shared memory. Tiles that no row sees are skipped: above
// the diagonal, and below the window; only tiles on an edge are masked. Late rows have the most
// keys: they start first, of all heads. mma.sync runs on every capability; shared memory stays
// within 96 KiB.

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_tile.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kThreads = 128;

__host__ __device__ constexpr int KeysOf(int dim) { return dim > 128 ? 32 : 64; }
__host__ __device__ constexpr int GroupsOf(int dim) { return dim > 128 ? 1 : 2; }
__host__ __device__ constexpr int RowsOf(int dim) { return GroupsOf(dim) * 16 * kThreads / kWarp; }

// Rows [first, first + count) of a sequence that a block takes.
struct RowTile {
  int32_t row, count, position, end;  // first of them; one past the last key that any sees
  int64_t slot;
};
template <int kDim>
__device__ inline bool TileOf(const StepRows& rows, int sequence, int tile, RowTile& out) {
  const int32_t sequence_row = rows.sequence_row[sequence];
  const int32_t all = rows.sequence_row[sequence + 1] - sequence_row;
  const int32_t first = tile * RowsOf(kDim);
  if (all < 2 || first >= all) return false;
  out.row = sequence_row + first;
  out.count = min(RowsOf(kDim), all - first);
  out.slot = rows.slot[out.row];
  out.position = rows.position[out.row];
  out.end = out.position + out.count;
  return out.slot >= 0;
}

// A warp's results, divided by their sums.
template <int kDim, int kGroups>
__device__ inline void StoreRows(const AttentionArgs& a, const RowState<kDim, kGroups>& state,
                                 const RowTile& tile, int first, int head) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int i = 0; i < kGroups; ++i) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int r = first + i * 16 + g + 8 * h;
      if (r >= tile.count) continue;
      float sum = state.sum[i][h], shrink = 1;
      if (a.sinks != nullptr) {
        const float sink = a.sinks[head] * kLog2E, largest = fmaxf(sink, state.largest[i][h]);
        shrink = Exp2(state.largest[i][h] - largest);
        sum = sum * shrink + Exp2(sink - largest);
      }
      const float factor = shrink / sum;
      Bf16* out =
          static_cast<Bf16*>(a.out) + (int64_t{tile.row + r} * a.q_heads + head) * kDim + 2 * t;
#pragma unroll
      for (int d = 0; d < kDim / 8; ++d) {
        *reinterpret_cast<uint32_t*>(out + d * 8) =
            Pack(state.out[i][d][2 * h] * factor, state.out[i][d][2 * h + 1] * factor);
      }
    }
  }
}

template <int kDim>
__device__ inline void CopyQueries(const AttentionArgs& a, const RowTile& tile, int head,
                                   uint4* q) {
  constexpr int kPieces = kDim / 8;
  const Bf16* from = static_cast<const Bf16*>(a.q) + (int64_t{tile.row} * a.q_heads + head) * kDim;
  for (int i = threadIdx.x; i < RowsOf(kDim) * kPieces; i += kThreads) {
    const int r = i / kPieces, piece = i % kPieces;
    const bool valid = r < tile.count;
    const Bf16* at = from + (valid ? int64_t{r} * a.q_heads * kDim + piece * 8 : 0);
    CopyAsync(TilePiece<kDim>(q, r, piece), at, valid);
  }
}

template <int kDim, bool kFp8>
using PrefillTiles = KeyTiles<kDim, KeysOf(kDim), kThreads, kFp8>;

template <int kDim, bool kFp8>
__global__ __launch_bounds__(kThreads, 2) void Prefill(const AttentionArgs a) {
  constexpr int kKeys = KeysOf(kDim), kGroups = GroupsOf(kDim);
  extern __shared__ uint4 shared[];
  uint4* q = shared;
  GridTrigger();
  GridWait();
  const int head = blockIdx.x;
  RowTile tile;
  if (!TileOf<kDim>(a.rows, blockIdx.z, gridDim.y - 1 - blockIdx.y, tile)) return;
  const int32_t kv_head = head / (a.q_heads / a.kv_heads);
  const int32_t low = a.window > 0 ? max(0, tile.position - a.window + 1) : 0;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  CopyQueries<kDim>(a, tile, head, q);

  const int own = warp * kGroups * 16;  // first row of the warp
  RowState<kDim, kGroups> state;
  Sight sight[kGroups][2];
#pragma unroll
  for (int i = 0; i < kGroups; ++i) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int32_t position = tile.position + own + i * 16 + lane / 4 + 8 * h;
      sight[i][h] = {a.window > 0 ? position - a.window : -1, position};
    }
  }
  const auto load_query = [&](int k, int group, uint32_t(&fragment)[4]) {
    LoadTiles(fragment, TilePiece<kDim>(q, own + group * 16 + lane % 16, k + lane / 16));
  };
  // Keys that all rows of the warp see.
  const int32_t seen_by_all = tile.position + own;
  const int32_t seen_from = a.window > 0 ? seen_by_all + kGroups * 16 - a.window : 0;
  const PrefillTiles<kDim, kFp8> tiles = {a.kv,
                                          tile.slot,
                                          kv_head,
                                          low,
                                          tile.end,
                                          low / kKeys,
                                          (tile.end - 1) / kKeys,
                                          shared + RowsOf(kDim) * (kDim / 8)};
  tiles.Each([&](int32_t i, uint4* keys, uint4* values) {
    const int32_t position = i * kKeys;
    if (position >= seen_by_all + kGroups * 16) return;  // no row of the warp sees it
    const bool masked = position + kKeys - 1 > seen_by_all || position < seen_from;
    AttendTile<kDim, kKeys, kGroups>(state, load_query, keys, values, position, masked, sight,
                                     a.scale * kLog2E);
  });
  state.Finish(a.scale * kLog2E);
  StoreRows<kDim, kGroups>(a, state, tile, own, head);
}

template <int kDim, bool kFp8>
OpError Run(const AttentionArgs& a, const LaunchContext& context) {
  constexpr size_t kPieces = size_t{RowsOf(kDim)} * kDim / 8 + PrefillTiles<kDim, kFp8>::kPieces;
  constexpr size_t kShared = kPieces * 16;
  static_assert(kShared <= 99 << 10);
  SWITCHYARD_RETURN_IF_OP_ERROR(AllowShared(Prefill<kDim, kFp8>, kShared));
  const int32_t longest = a.rows.longest < a.rows.rows ? a.rows.longest : a.rows.rows;
  const dim3 grid(a.q_heads, (longest + RowsOf(kDim) - 1) / RowsOf(kDim), a.rows.sequences);
  return Launch(context, grid, kThreads, kShared, Prefill<kDim, kFp8>, a);
}

template <int kDim>
OpError Run(const AttentionArgs& a, const LaunchContext& context) {
  return a.kv.dtype == DType::kF8E4M3 ? Run<kDim, true>(a, context) : Run<kDim, false>(a, context);
}

}  // namespace

OpError PrefillAttention(const AttentionArgs& args, const LaunchContext& context) {
  switch (args.head_dim) {
    case 64:
      return Run<64>(args, context);
    case 128:
      return Run<128>(args, context);
    case 256:
      return Run<256>(args, context);
  }
  return {"no such head size"};
}

}  // namespace switchyard::kernels::cuda
