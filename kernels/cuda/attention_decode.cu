// Attention of one row a sequence over paged KV (Dao et al. 2023, "Flash-Decoding").
//
// A block takes one KV head, up to sixteen of the query heads that share it (each key is read once
// for all of them), and one of `splits` parts of the sequence's keys; its warps take 16 keys of a
// tile each and merge at the end. Tiles arrive by cp.async, two in flight. A second kernel merges
// the parts. Bound by memory: the parts are as many as fill the device, whatever the context, and
// at least a tile long. On an H200, of the read limit: 61% for one sequence of 32k, 69% for 64 of
// 1k; with a look-up of the block table for every 16 bytes it was 55 and 57.

#include <algorithm>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_tile.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kHeads = 16;  // query heads of a block
constexpr int kMostSplits = 64;

__host__ __device__ constexpr int KeysOf(int dim) { return dim > 128 ? 32 : 64; }

// Keys [low, high) that a part reads, low a multiple of a tile, and how many parts read any.
struct Part {
  int32_t low, high, parts;
};
__device__ inline Part PartOf(int32_t first, int32_t end, int split, int splits, int keys) {
  first = first / keys * keys;
  const int32_t per_split = ((end - first + splits - 1) / splits + keys - 1) / keys * keys;
  const int32_t low = first + split * per_split;
  return {low, min(end, low + per_split), (end - first + per_split - 1) / per_split};
}

__device__ inline int32_t FirstKey(int32_t position, int32_t window) {
  return window > 0 ? max(0, position - window + 1) : 0;
}

// The row of sequence `s` if it is the only one, else -1.
__device__ inline int32_t OnlyRow(const StepRows& rows, int s) {
  const int32_t row = rows.sequence_row[s];
  if (rows.sequence_row[s + 1] - row != 1 || rows.slot[row] < 0) return -1;
  return row;
}

// Part results of (sequence, head, split): the largest score and the sum, then the row itself.
template <int kDim>
__device__ inline float* PartResult(float* scratch, int64_t sequence, int64_t heads, int64_t head,
                                    int splits, int split) {
  return scratch + ((sequence * heads + head) * splits + split) * (kDim + 2);
}

template <int kDim>
__global__ __launch_bounds__(KeysOf(kDim) / 16 * kWarp) void Decode(const AttentionArgs a,
                                                                    int groups, float* scratch) {
  constexpr int kKeys = KeysOf(kDim), kWarps = kKeys / 16, kPieces = kDim / 8;
  extern __shared__ uint4 shared[];
  uint4* q = shared;
  uint4* tiles = shared + kHeads * kPieces;  // two stages of keys and values
  GridTrigger();
  GridWait();
  const int sequence = blockIdx.z, split = blockIdx.x, splits = gridDim.x;
  const int32_t row = OnlyRow(a.rows, sequence);
  if (row < 0) return;
  const int32_t ratio = a.q_heads / a.kv_heads;
  const int32_t kv_head = blockIdx.y / groups;
  const int32_t first_head = kv_head * ratio + blockIdx.y % groups * kHeads;
  const int32_t heads = min(kHeads, (kv_head + 1) * ratio - first_head);
  const int64_t slot = a.rows.slot[row];
  const int32_t position = a.rows.position[row];
  const int32_t first_key = FirstKey(position, a.window);
  const Part part = PartOf(first_key, position + 1, split, splits, kKeys);
  if (part.low >= part.high) return;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;

  const uint4* from = reinterpret_cast<const uint4*>(
      static_cast<const Bf16*>(a.q) + (int64_t{row} * a.q_heads + first_head) * kDim);
  for (int i = threadIdx.x; i < kHeads * kPieces; i += blockDim.x) {
    *TilePiece<kDim>(q, i / kPieces, i % kPieces) =
        i < heads * kPieces ? from[i] : make_uint4(0, 0, 0, 0);
  }
  const int count = (part.high - part.low + kKeys - 1) / kKeys;
  const auto copy = [&](int i) {
    if (i < count) {
      uint4* keys = tiles + i % 2 * 2 * kKeys * kPieces;
      CopyKv<kDim, kKeys, kWarps * kWarp>(a.kv, slot, kv_head, part.low + i * kKeys, first_key,
                                          part.high, keys, keys + kKeys * kPieces);
    }
    CopyCommit();
  };
  RowState<kDim> state;
  const Sight sight[2] = {{first_key - 1, part.high - 1}, {first_key - 1, part.high - 1}};
  copy(0);
  for (int i = 0; i < count; ++i) {
    copy(i + 1);
    CopyWait<1>();
    __syncthreads();
    uint4* keys = tiles + i % 2 * 2 * kKeys * kPieces;
    AttendTile<kDim, 16>(state, q, 0, keys, keys + kKeys * kPieces, warp * 16,
                         part.low + i * kKeys + warp * 16, sight, a.scale * kLog2E);
    __syncthreads();
  }
  CopyWait<0>();
  __syncthreads();
  state.Finish();

  // Merge the warps: each leaves its rows in shared memory.
  float* merged = reinterpret_cast<float*>(tiles);   // [warp][16][dim]
  float* numbers = merged + kWarps * kHeads * kDim;  // [warp][16][2]
  const int g = lane / 4, t = lane % 4;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = warp * kHeads + g + 8 * h;
    if (t == 0) {
      numbers[2 * r] = state.largest[h];
      numbers[2 * r + 1] = state.sum[h];
    }
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      merged[r * kDim + d * 8 + 2 * t] = state.out[d][2 * h];
      merged[r * kDim + d * 8 + 2 * t + 1] = state.out[d][2 * h + 1];
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < heads * kDim; i += blockDim.x) {
    const int head = i / kDim, d = i % kDim;
    float largest = -INFINITY, sum = 0, out = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) largest = fmaxf(largest, numbers[2 * (w * kHeads + head)]);
    const float base = largest == -INFINITY ? 0 : largest;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const int r = w * kHeads + head;
      const float shrink = exp2f(numbers[2 * r] - base);
      sum += shrink * numbers[2 * r + 1];
      out += shrink * merged[r * kDim + d];
    }
    float* to = PartResult<kDim>(scratch, sequence, a.q_heads, first_head + head, splits, split);
    if (d == 0) {
      to[0] = largest;
      to[1] = sum;
    }
    to[2 + d] = out;
  }
}

template <int kDim>
__global__ __launch_bounds__(kDim) void MergeParts(const AttentionArgs a, int splits,
                                                   float* scratch) {
  GridTrigger();
  GridWait();
  const int sequence = blockIdx.y, head = blockIdx.x, d = threadIdx.x;
  const int32_t row = OnlyRow(a.rows, sequence);
  if (row < 0) return;
  const int32_t position = a.rows.position[row];
  const int parts =
      PartOf(FirstKey(position, a.window), position + 1, 0, splits, KeysOf(kDim)).parts;
  const float* part = PartResult<kDim>(scratch, sequence, a.q_heads, head, splits, 0);
  const float sink = a.sinks != nullptr ? a.sinks[head] * kLog2E : -INFINITY;
  float largest = sink;
#pragma unroll 8
  for (int s = 0; s < parts; ++s) largest = fmaxf(largest, part[s * (kDim + 2)]);
  float sum = a.sinks != nullptr ? exp2f(sink - largest) : 0, out = 0;
#pragma unroll 8
  for (int s = 0; s < parts; ++s) {
    const float* p = part + s * (kDim + 2);
    const float shrink = exp2f(p[0] - largest);
    sum += shrink * p[1];
    out += shrink * p[2 + d];
  }
  static_cast<Bf16*>(a.out)[(int64_t{row} * a.q_heads + head) * kDim + d] =
      __float2bfloat16_rn(out / sum);
}

template <int kDim>
OpError Run(const AttentionArgs& a, int splits, float* scratch, const LaunchContext& context) {
  constexpr int kKeys = KeysOf(kDim), kWarps = kKeys / 16;
  constexpr size_t kQuery = size_t{kHeads} * kDim * 2, kTiles = size_t{4} * kKeys * kDim * 2;
  constexpr size_t kMerge = size_t{kWarps} * kHeads * (kDim + 2) * 4;
  constexpr size_t kShared = kQuery + (kTiles > kMerge ? kTiles : kMerge);
  const int groups = (a.q_heads / a.kv_heads + kHeads - 1) / kHeads;
  SWITCHYARD_RETURN_IF_OP_ERROR(AllowShared(Decode<kDim>, kShared));
  SWITCHYARD_RETURN_IF_OP_ERROR(Launch(context, dim3(splits, a.kv_heads * groups, a.rows.sequences),
                                       kWarps * kWarp, kShared, Decode<kDim>, a, groups, scratch));
  return Launch(context, dim3(a.q_heads, a.rows.sequences), kDim, 0, MergeParts<kDim>, a, splits,
                scratch);
}

// One wave of blocks where a sequence needs cutting, else several, so that the last one is short.
int Splits(int64_t sequences, int64_t kv_heads, int multiprocessors) {
  const int64_t slots = 3 * int64_t{multiprocessors};
  const int64_t others = std::max<int64_t>(sequences * kv_heads, 1);
  const int64_t splits = 2 * others <= slots ? slots / others : (4 * slots + others - 1) / others;
  return static_cast<int>(std::clamp<int64_t>(splits, 1, kMostSplits));
}

}  // namespace

int DecodeSplits(const AttentionArgs& args, int multiprocessors) {
  return Splits(args.rows.sequences, args.kv_heads, multiprocessors);
}

int64_t DecodeScratchFloats(int64_t sequences, int64_t q_heads, int64_t kv_heads, int64_t head_dim,
                            int multiprocessors) {
  if (kv_heads == 0) return 0;
  // sequences x Splits(sequences), at its largest over all counts up to `sequences`.
  const int64_t parts = sequences + 12 * int64_t{multiprocessors} / kv_heads + 1;
  return parts * q_heads * (head_dim + 2);
}

bool HasAttentionTile(int32_t head_dim) {
  return head_dim == 64 || head_dim == 128 || head_dim == 256;
}

OpError DecodeAttention(const AttentionArgs& args, int splits, float* scratch,
                        const LaunchContext& context) {
  switch (args.head_dim) {
    case 64:
      return Run<64>(args, splits, scratch, context);
    case 128:
      return Run<128>(args, splits, scratch, context);
    case 256:
      return Run<256>(args, splits, scratch, context);
  }
  return {"no such head size"};
}

}  // namespace switchyard::kernels::cuda
