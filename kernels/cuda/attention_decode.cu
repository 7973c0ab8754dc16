// Attention of one row a sequence over paged KV (Dao et al. 2023, "Flash-Decoding").
//
// A block takes one KV head, up to sixteen of the query heads that share it (each key is read once
// for all of them), and one of `splits` parts of the sequence's keys. Each of its warps works on
// its own: every fourth (second, where heads are 256 wide) sixteen keys, which arrive by cp.async
// in the warp's own ring of three tiles (four, where heads are 64 wide), without a barrier of the
// block until the warps merge at the end. fp8 tiles are widened in shared memory. All keys but the
// newest one are asked for before the kernel in front has ended. A second kernel merges the parts.
// Bound by memory: the parts are as many as fill the device, whatever the context.

#include <algorithm>

#include "kernels/cuda/attention_decode_tiles.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kMostSplits = 64;

// Blocks that a multiprocessor of the largest kind holds at the same time.
constexpr int BlocksOf(int dim) { return dim < 128 ? 3 : 2; }

// Part results of (sequence, head, split): the largest score and the sum, then the row itself.
template <int kDim, class T>  // T: float, or const float
__device__ inline T* PartResult(T* scratch, int64_t sequence, int64_t heads, int64_t head,
                                int splits, int split) {
  return scratch + ((sequence * heads + head) * splits + split) * (kDim + 2);
}

// Heads g and g + 8 of a block as the left operand of mma, for all of a head's elements.
template <int kDim>
__device__ inline void LoadQueries(const Bf16* q, int heads, uint32_t (&fragment)[kDim / 16][4]) {
  const int lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int head = g + c % 2 * 8, element = k * 16 + c / 2 * 8 + 2 * t;
      fragment[k][c] =
          head < heads ? *reinterpret_cast<const uint32_t*>(q + head * kDim + element) : 0;
    }
  }
}

// Merges the warps of a block, through shared memory, into the part's result.
template <int kDim>
__device__ inline void MergeWarps(const RowState<kDim, 1>& state, int heads, float* shared,
                                  float* to, int64_t head_stride) {
  constexpr int kWarps = WarpsOf(kDim);
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  float* numbers = shared + kWarps * kDecodeHeads * kDim;  // [warp][16][2], behind [warp][16][dim]
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if (g + 8 * h >= heads) continue;
    const int r = warp * kDecodeHeads + g + 8 * h;
    if (t == 0) {
      numbers[2 * r] = state.largest[0][h];
      numbers[2 * r + 1] = state.sum[0][h];
    }
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d) {
      *reinterpret_cast<float2*>(shared + r * kDim + d * 8 + 2 * t) = {state.out[0][d][2 * h],
                                                                       state.out[0][d][2 * h + 1]};
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < heads * kDim; i += blockDim.x) {
    const int head = i / kDim, d = i % kDim;
    float largest = -INFINITY, sum = 0, out = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w)
      largest = fmaxf(largest, numbers[2 * (w * kDecodeHeads + head)]);
    const float base = largest == -INFINITY ? 0 : largest;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const int r = w * kDecodeHeads + head;
      const float shrink = Exp2(numbers[2 * r] - base);
      sum += shrink * numbers[2 * r + 1];
      out += shrink * shared[r * kDim + d];
    }
    float* own = to + head * head_stride;
    if (d == 0) {
      own[0] = largest;
      own[1] = sum;
    }
    own[2 + d] = out;
  }
}

template <int kDim, bool kFp8>
__global__ __launch_bounds__(WarpsOf(kDim) * kWarp) void Decode(const AttentionArgs a, int groups,
                                                                float* scratch) {
  extern __shared__ uint4 shared[];
  DecodeBlock block;
  if (!BlockOf<kDim>(a, groups, block)) return GridWait();
  const WarpTiles<kDim, kFp8> tiles(a.kv, block,
                                    shared + threadIdx.x / kWarp * WarpPieces<kDim, kFp8>());
  tiles.AskBeforeWait();
  GridWait();
  GridTrigger();
  tiles.AddNewest();
  uint32_t query[kDim / 16][4];
  LoadQueries<kDim>(static_cast<const Bf16*>(a.q) +
                        (int64_t{block.only.row} * a.q_heads + block.first_head) * kDim,
                    block.heads, query);
  const auto load_query = [&](int k, int, uint32_t(&fragment)[4]) {
#pragma unroll
    for (int c = 0; c < 4; ++c) fragment[c] = query[k / 2][c];
  };
  RowState<kDim, 1> state;
  const Sight seen = {block.first_key - 1, block.part.high - 1};
  const Sight sight[1][2] = {{seen, seen}};
  for (int i = 0; i < tiles.count(); ++i) {
    uint4* keys = tiles.Take(i);
    const int32_t position = tiles.Position(i);
    const bool masked = position < block.first_key || position + kTileKeys > block.part.high;
    AttendTile<kDim, kTileKeys, 1>(state, load_query, keys,
                                   keys + DecodeTile<kDim, kFp8>::kWideHalf, position, masked,
                                   sight, a.scale * kLog2E);
  }
  CopyWait<0>();
  __syncthreads();
  state.Finish(a.scale * kLog2E);
  float* to =
      PartResult<kDim>(scratch, blockIdx.z, a.q_heads, block.first_head, gridDim.x, blockIdx.x);
  MergeWarps<kDim>(state, block.heads, reinterpret_cast<float*>(shared), to,
                   int64_t{gridDim.x} * (kDim + 2));
}

// A block a head: every warp finds the factors of all parts, a lane's two parts at a time.
template <int kDim>
__global__ __launch_bounds__(kDim) void MergeParts(const AttentionArgs a, int splits,
                                                   const float* scratch) {
  static_assert(kMostSplits == 2 * kWarp, "parts of a lane");
  constexpr int kStride = kDim + 2;
  GridTrigger();
  const int sequence = blockIdx.y, head = blockIdx.x, d = threadIdx.x, lane = d % kWarp;
  const OnlyRow only = OnlyRowOf(a.rows, sequence);
  // Nothing of Decode's is read, whose blocks had all waited for the kernels before when this
  // began.
  if (only.row < 0) return;
  const int parts =
      PartOf<kDim>(FirstKey(only.position, a.window), only.position + 1, 0, splits).parts;
  const float sink = a.sinks != nullptr ? a.sinks[head] * kLog2E : -INFINITY;
  const float* part = PartResult<kDim>(scratch, sequence, a.q_heads, head, splits, 0);
  GridWait();
  const auto number = [&](int s, int i, float none) {
    return s < parts ? part[s * kStride + i] : none;
  };
  float factor[2] = {number(lane, 0, -INFINITY), number(lane + kWarp, 0, -INFINITY)};
  const float sums[2] = {number(lane, 1, 0), number(lane + kWarp, 1, 0)};
  float largest = fmaxf(sink, fmaxf(factor[0], factor[1]));
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, offset));
  }
  factor[0] = Exp2(factor[0] - largest);
  factor[1] = Exp2(factor[1] - largest);
  float sum = WarpSum(factor[0] * sums[0] + factor[1] * sums[1]);
  if (a.sinks != nullptr) sum += Exp2(sink - largest);
  float out = 0;
#pragma unroll 8
  for (int s = 0; s < parts; ++s) {
    const float own = s < kWarp ? factor[0] : factor[1];
    out = fmaf(__shfl_sync(kAllLanes, own, s % kWarp), part[s * kStride + 2 + d], out);
  }
  static_cast<Bf16*>(a.out)[(int64_t{only.row} * a.q_heads + head) * kDim + d] =
      __float2bfloat16_rn(out / sum);
}

template <int kDim, bool kFp8>
OpError Run(const AttentionArgs& a, int splits, float* scratch, const LaunchContext& context) {
  constexpr int kWarps = WarpsOf(kDim);
  constexpr size_t kTiles = size_t{kWarps} * WarpPieces<kDim, kFp8>() * 16;
  constexpr size_t kMerge = size_t{kWarps} * kDecodeHeads * (kDim + 2) * 4;
  constexpr size_t kShared = kTiles > kMerge ? kTiles : kMerge;
  static_assert(kShared <= 99 << 10);
  const int groups = (a.q_heads / a.kv_heads + kDecodeHeads - 1) / kDecodeHeads;
  SWITCHYARD_RETURN_IF_OP_ERROR(AllowShared(Decode<kDim, kFp8>, kShared));
  SWITCHYARD_RETURN_IF_OP_ERROR(Launch(context, dim3(splits, a.kv_heads * groups, a.rows.sequences),
                                       kWarps * kWarp, kShared, Decode<kDim, kFp8>, a, groups,
                                       scratch));
  return Launch(context, dim3(a.q_heads, a.rows.sequences), kDim, 0, MergeParts<kDim>, a, splits,
                scratch);
}

template <int kDim>
OpError Run(const AttentionArgs& a, int splits, float* scratch, const LaunchContext& context) {
  return a.kv.dtype == DType::kF8E4M3 ? Run<kDim, true>(a, splits, scratch, context)
                                      : Run<kDim, false>(a, splits, scratch, context);
}

// One wave of blocks where a sequence needs cutting, else several, so that the last one is short.
int Splits(int64_t sequences, int64_t kv_heads, int64_t head_dim, int multiprocessors) {
  const int64_t slots = BlocksOf(static_cast<int>(head_dim)) * int64_t{multiprocessors};
  const int64_t others = std::max<int64_t>(sequences * kv_heads, 1);
  const int64_t splits = 2 * others <= slots ? slots / others : (4 * slots + others - 1) / others;
  return static_cast<int>(std::clamp<int64_t>(splits, 1, kMostSplits));
}

}  // namespace

int DecodeSplits(const AttentionArgs& args, int multiprocessors) {
  return Splits(args.rows.sequences, args.kv_heads, args.head_dim, multiprocessors);
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
