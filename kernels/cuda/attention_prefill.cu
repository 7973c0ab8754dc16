// Attention of sequences with several rows this step, over paged KV (Dao et al. 2022).
//
// A block takes 64 rows of one query head, a warp 16 of them; keys and values arrive by cp.async in
// tiles of 64 (of 32 where heads are 256 wide), one tile ahead. Tiles that no row sees are skipped:
// above the diagonal, and below the window. Late rows have the most keys, so they start first.
// mma.sync runs on every capability; shared memory stays within 96 KiB. On an H200 2.5 ms for 8192
// rows of 32 heads of 128: 220 TFLOP/s.

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_tile.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kRows = 64, kThreads = 128;

__host__ __device__ constexpr int KeysOf(int dim) { return dim > 128 ? 32 : 64; }

template <int kDim>
__global__ __launch_bounds__(kThreads) void Prefill(const AttentionArgs a) {
  constexpr int kKeys = KeysOf(kDim), kPieces = kDim / 8;
  extern __shared__ uint4 shared[];
  uint4* q = shared;
  uint4* tiles = shared + kRows * kPieces;
  GridTrigger();
  GridWait();
  const int sequence = blockIdx.z, head = blockIdx.y;
  const int32_t sequence_row = a.rows.sequence_row[sequence];
  const int32_t sequence_rows = a.rows.sequence_row[sequence + 1] - sequence_row;
  const int32_t first = static_cast<int32_t>(gridDim.x - 1 - blockIdx.x) * kRows;
  if (sequence_rows < 2 || first >= sequence_rows) return;
  const int32_t row = sequence_row + first, count = min(kRows, sequence_rows - first);
  const int64_t slot = a.rows.slot[row];
  if (slot < 0) return;
  const int32_t kv_head = head / (a.q_heads / a.kv_heads);
  const int32_t position = a.rows.position[row], end = position + count;
  const int32_t low = a.window > 0 ? max(0, position - a.window + 1) : 0;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int g = lane / 4, t = lane % 4;

  const Bf16* from = static_cast<const Bf16*>(a.q) + (int64_t{row} * a.q_heads + head) * kDim;
  for (int i = threadIdx.x; i < kRows * kPieces; i += kThreads) {
    const int r = i / kPieces, piece = i % kPieces;
    const bool valid = r < count;
    const Bf16* at = from + (valid ? int64_t{r} * a.q_heads * kDim + piece * 8 : 0);
    CopyAsync(TilePiece<kDim>(q, r, piece), at, valid);
  }
  const int32_t first_tile = low / kKeys, last_tile = (end - 1) / kKeys;
  const auto copy = [&](int32_t i) {
    if (i <= last_tile) {
      uint4* keys = tiles + i % 2 * 2 * kKeys * kPieces;
      CopyKv<kDim, kKeys, kThreads>(a.kv, slot, kv_head, i * kKeys, low, end, keys,
                                    keys + kKeys * kPieces);
    }
    CopyCommit();
  };
  RowState<kDim> state;
  Sight sight[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int32_t own = position + warp * 16 + g + 8 * h;
    sight[h] = {a.window > 0 ? own - a.window : -1, own};
  }
  copy(first_tile);
  for (int32_t i = first_tile; i <= last_tile; ++i) {
    copy(i + 1);
    CopyWait<1>();
    __syncthreads();
    uint4* keys = tiles + i % 2 * 2 * kKeys * kPieces;
    AttendTile<kDim, kKeys>(state, q, warp * 16, keys, keys + kKeys * kPieces, 0, i * kKeys, sight,
                            a.scale * kLog2E);
    __syncthreads();
  }
  CopyWait<0>();
  state.Finish();

#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = warp * 16 + g + 8 * h;
    if (r >= count) continue;
    float sum = state.sum[h], shrink = 1;
    if (a.sinks != nullptr) {
      const float sink = a.sinks[head] * kLog2E, largest = fmaxf(sink, state.largest[h]);
      shrink = exp2f(state.largest[h] - largest);
      sum = sum * shrink + exp2f(sink - largest);
    }
    const float factor = shrink / sum;
    Bf16* out = static_cast<Bf16*>(a.out) + (int64_t{row + r} * a.q_heads + head) * kDim + 2 * t;
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      *reinterpret_cast<uint32_t*>(out + d * 8) =
          Pack(state.out[d][2 * h] * factor, state.out[d][2 * h + 1] * factor);
    }
  }
}

template <int kDim>
OpError Run(const AttentionArgs& a, const LaunchContext& context) {
  constexpr size_t kShared = (size_t{kRows} + 4 * KeysOf(kDim)) * kDim * 2;
  SWITCHYARD_RETURN_IF_OP_ERROR(AllowShared(Prefill<kDim>, kShared));
  const int32_t longest = a.rows.longest < a.rows.rows ? a.rows.longest : a.rows.rows;
  const dim3 grid((longest + kRows - 1) / kRows, a.q_heads, a.rows.sequences);
  return Launch(context, grid, kThreads, kShared, Prefill<kDim>, a);
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
