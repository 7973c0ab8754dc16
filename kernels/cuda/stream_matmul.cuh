#pragma once

// Product of weights of any format with 1 to 16 rows: decode.
//
// The weights are the left operand of mma.m16n8k16: which k a tensor core multiplies first does not
// matter, so a lane takes neighbouring columns of its two weight rows, 16 bytes each, and the same
// columns of its row of x. A warp's tile is 16 weight rows; of gate and up and of rotated pairs the
// partners are the two rows of one lane. A block makes a few tiles; their chunks (64 bytes of each
// row) go round its eight warps, which add up in shared memory at the end.
//
// Every thread has a ring of its own in shared memory, filled by cp.async and read by no one else:
// no barrier, few registers, and up to 48 KiB a block in flight. The ring is filled before the
// kernel waits for the one in front, which hides the gap between them. x comes from the first-level
// cache, except for one row that has yet to be normed: that one is staged in shared memory, times
// the norm's weight, and 1 / rms multiplies the sum.

#include <algorithm>

#include "kernels/cuda/qkv_output.cuh"
#include "kernels/cuda/weight_formats.cuh"

namespace switchyard::kernels::cuda {

constexpr int kStreamWarps = 8, kStreamThreads = kStreamWarps * kWarp;

struct StreamArgs {
  MatmulArgs m;
  int32_t tiles = 0, tiles_a_block = 0;
  int32_t chunks = 0;  // of a row
};

// Rows of x: one that is normed here, up to 8, up to 16.
enum class StreamRows : uint8_t { kNormed, kEight, kSixteen };
__host__ __device__ constexpr int StreamColumns(
    StreamRows rows) {  // results that a warp keeps of a weight row
  return rows == StreamRows::kNormed ? 1 : rows == StreamRows::kEight ? 8 : 16;
}

template <class Format>
__host__ __device__ constexpr size_t StreamRingBytes() {
  return size_t{Format::kStages} * kStreamThreads * (32 + 8 * Format::kWords);
}
__host__ __device__ constexpr size_t StreamPartialBytes(int tiles, int columns) {
  return size_t{kStreamWarps} * tiles * 16 * columns * sizeof(float);
}

// The two weight rows of lane group g in a tile; -1: none.
struct TileRows {
  int32_t low, high;
};
template <Output kOutput>
__device__ inline TileRows RowsOfTile(const MatmulArgs& a, int32_t tile, int32_t g) {
  const int32_t n = static_cast<int32_t>(a.n);
  if constexpr (kOutput == Output::kGateUp || kOutput == Output::kQkv) {
    const int32_t pair = tile * 8 + g;
    if (pair >= n / 2) return {-1, -1};
    if constexpr (kOutput == Output::kGateUp) return {pair, n / 2 + pair};
    const QkvPlace place = PlaceOfPair(a.qkv, pair);
    return {place.head * a.qkv.head_dim + place.first, place.head * a.qkv.head_dim + place.second};
  }
  const int32_t low = tile * 16 + g;
  return {low < n ? low : -1, low + 8 < n ? low + 8 : -1};
}

// Where a warp stands in its block's tiles and chunks, and what of a row is the same for all of it.
template <class Format, Output kOutput>
struct StreamCursor {
  int32_t tile, chunk;
  TileRows row;
  uint32_t low_element, high_element;

  __device__ void Enter(const StreamArgs& s, int64_t expert, int32_t first, int g) {
    tile = first;
    row = RowsOfTile<kOutput>(s.m, tile, g);
    low_element = Format::RowElement(s.m, expert, max(row.low, 0));
    high_element = Format::RowElement(s.m, expert, max(row.high, 0));
  }
};

// Loads a word into the first-level cache; the value is nobody's.
__device__ inline void Touch(const void* at) {
  asm volatile("{ .reg .u32 unused; ld.global.u32 unused, [%0]; }" ::"l"(at));
}

__device__ inline void CopyWeights(void* shared, const void* global, bool valid) {
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(global),
               "r"(valid ? 16 : 0)
               : "memory");
}
__device__ inline void CopyWord(void* shared, const void* global, bool valid) {
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(global),
               "r"(valid ? 4 : 0)
               : "memory");
}

// A thread's ring: per stage the pieces of its two rows, and the words of their scales and zeros.
template <class Format>
class StreamRing {
 public:
  __device__ explicit StreamRing(uint4* shared) : pieces_(shared + threadIdx.x) {
    words_ =
        reinterpret_cast<uint32_t*>(shared + Format::kStages * 2 * kStreamThreads) + threadIdx.x;
  }

  template <class Cursor>
  __device__ void Fill(int stage, const StreamArgs& s, const Cursor& c, int64_t expert, int t) {
    const MatmulArgs& a = s.m;
    const int64_t k = (int64_t{c.chunk} * 4 + t) * Format::kLaneK;
    const bool inside = k < a.k;
    const char* w = static_cast<const char*>(a.w);
    const int64_t pitch = a.k * 16 / Format::kLaneK, at = k * 16 / Format::kLaneK;
    const bool low = inside && c.row.low >= 0, high = inside && c.row.high >= 0;
    const int64_t first = expert * a.n;
    CopyWeights(piece(stage, 0), low ? w + (first + c.row.low) * pitch + at : w, low);
    CopyWeights(piece(stage, 1), high ? w + (first + c.row.high) * pitch + at : w, high);
    if constexpr (Format::kWords > 0) {
      const uint32_t group = static_cast<uint32_t>(ScaleColumn(c, t) >> a.group_shift);
      const uint32_t* scales = static_cast<const uint32_t*>(a.scales);
      const uint32_t low_element = c.low_element + group, high_element = c.high_element + group;
      // A chunk's scale multiplies sums in every lane, also in one whose own columns do not exist.
      const bool low_scale = Format::kChunkScale ? c.row.low >= 0 : low;
      const bool high_scale = Format::kChunkScale ? c.row.high >= 0 : high;
      CopyWord(word(stage, 0), low_scale ? scales + low_element / Format::kElementsPerWord : scales,
               low_scale);
      CopyWord(word(stage, 1),
               high_scale ? scales + high_element / Format::kElementsPerWord : scales, high_scale);
      if (Format::kWords > 1 && a.zeros != nullptr) {
        const uint32_t* zeros = static_cast<const uint32_t*>(a.zeros);
        CopyWord(word(stage, 2), low ? zeros + low_element / 4 : zeros, low);
        CopyWord(word(stage, 3), high ? zeros + high_element / 4 : zeros, high);
      }
    }
  }

  template <class Cursor>
  __device__ ScaleWords Scales(int stage, const MatmulArgs& a, const Cursor& c, int half, int t) {
    ScaleWords words;
    if constexpr (Format::kWords > 0) {
      words.element =
          (half == 0 ? c.low_element : c.high_element) + (ScaleColumn(c, t) >> a.group_shift);
      words.scale = *word(stage, half);
      if (Format::kWords > 1) words.zero = a.zeros != nullptr ? *word(stage, 2 + half) : 0x08080808;
    }
    return words;
  }
  __device__ uint4 Piece(int stage, int half) { return *piece(stage, half); }

 private:
  template <class Cursor>
  __device__ static int32_t ScaleColumn(const Cursor& c, int t) {
    return (c.chunk * 4 + (Format::kChunkScale ? 0 : t)) * Format::kLaneK;
  }
  __device__ uint4* piece(int stage, int half) {
    return pieces_ + (stage * 2 + half) * kStreamThreads;
  }
  __device__ uint32_t* word(int stage, int i) {
    return words_ + (stage * 2 * Format::kWords + i) * kStreamThreads;
  }
  uint4* pieces_;
  uint32_t* words_;
};

// x times the norm's weight into shared memory, zeros up to `padded`; the sum of the thread's
// squares.
__device__ inline float StageNormed(const uint4* x, const float* weights, int pieces, int padded,
                                    uint4* shared) {
  const float4* norm = reinterpret_cast<const float4*>(weights);
  float squares = 0;
#pragma unroll 2
  for (int i = threadIdx.x; i < padded; i += kStreamThreads) {
    uint4 v = make_uint4(0, 0, 0, 0);
    if (i < pieces) {
      v = x[i];
      const float4 first = __ldg(norm + 2 * i), second = __ldg(norm + 2 * i + 1);
      squares = DotPiece(v, v, squares);
      v.x = Pack(Low(v.x) * first.x, High(v.x) * first.y);
      v.y = Pack(Low(v.y) * first.z, High(v.y) * first.w);
      v.z = Pack(Low(v.z) * second.x, High(v.z) * second.y);
      v.w = Pack(Low(v.w) * second.z, High(v.w) * second.w);
    }
    shared[i] = v;
  }
  return squares;
}

// Adds a chunk's products: the lane's pieces of two weight rows with its piece of each row of x.
template <class Format, int kTiles, class LoadX>
__device__ inline void MultiplyChunk(const uint4& low, const uint4& high,
                                     const ScaleWords& low_scale, const ScaleWords& high_scale,
                                     const LoadX& load_x, float (&sum)[kTiles][4]) {
  const auto low_lane = Format::Prepare(low_scale), high_lane = Format::Prepare(high_scale);
  float chunk[kTiles][4] = {};
#pragma unroll
  for (int i = 0; i < Format::kLaneK / 8; ++i) {
    uint32_t a[4], b[4];
    Format::Unpack(low, i, low_lane, a);
    Format::Unpack(high, i, high_lane, b);
#pragma unroll
    for (int c = 0; c < kTiles; ++c) {
      const uint4 x = load_x(c, i);
      float(&to)[4] = Format::kChunkScale ? chunk[c] : sum[c];
      MultiplyTile(to, a[0], b[0], a[1], b[1], x.x, x.y);
      MultiplyTile(to, a[2], b[2], a[3], b[3], x.z, x.w);
    }
  }
  if constexpr (Format::kChunkScale) {
    const float low_factor = Format::ChunkScale(low_scale);
    const float high_factor = Format::ChunkScale(high_scale);
#pragma unroll
    for (int c = 0; c < kTiles; ++c) {
      sum[c][0] = fmaf(low_factor, chunk[c][0], sum[c][0]);
      sum[c][1] = fmaf(low_factor, chunk[c][1], sum[c][1]);
      sum[c][2] = fmaf(high_factor, chunk[c][2], sum[c][2]);
      sum[c][3] = fmaf(high_factor, chunk[c][3], sum[c][3]);
    }
  }
}

template <class Format, Output kOutput, StreamRows kRows>
__global__ __launch_bounds__(kStreamThreads, kRows == StreamRows::kSixteen
                                                 ? 2
                                                 : 3) void Stream(const StreamArgs s) {
  constexpr int kColumns = StreamColumns(kRows), kTiles = (kColumns + 7) / 8;
  constexpr bool kNormed = kRows == StreamRows::kNormed;
  extern __shared__ uint4 shared[];
  __shared__ float squares[kStreamWarps];
  const MatmulArgs& a = s.m;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const int32_t first_tile = blockIdx.x * s.tiles_a_block;
  const int32_t end_tile = min(s.tiles, first_tile + s.tiles_a_block);
  float* partial = reinterpret_cast<float*>(shared + StreamRingBytes<Format>() / sizeof(uint4));
  uint4* staged =
      shared +
      (StreamRingBytes<Format>() + StreamPartialBytes(s.tiles_a_block, kColumns)) / sizeof(uint4);

  GridTrigger();
  int64_t expert = 0, x_first = 0;  // of experts, a block has one row
  if (a.expert != nullptr) {        // chosen by the kernel before
    GridWait();
    expert = a.expert[blockIdx.y];
    x_first = blockIdx.y;
  }
  const int rows = a.expert != nullptr ? 1 : a.rows;
  StreamRing<Format> ring(shared);
  StreamCursor<Format, kOutput> fill, use;
  const auto advance = [&](StreamCursor<Format, kOutput>& c, int chunks, const auto& leave) {
    c.chunk += chunks;
    while (c.chunk >= s.chunks && c.tile < end_tile) {
      c.chunk -= s.chunks;
      leave();
      c.Enter(s, expert, c.tile + 1, g);
    }
  };
  fill.chunk = use.chunk = 0;
  fill.Enter(s, expert, first_tile, g);
  use = fill;
  advance(fill, warp, [] {});
#pragma unroll
  for (int stage = 0; stage < Format::kStages; ++stage) {
    if (fill.tile < end_tile) {
      ring.Fill(stage, s, fill, expert, t);
      advance(fill, kStreamWarps, [] {});
    }
    CopyCommit();
  }
  if constexpr (kNormed) {
    for (int i = threadIdx.x * 32; i < a.k; i += kStreamThreads * 32) Touch(a.norm + i);
  }
  if (a.expert == nullptr) GridWait();

  // Which pair of results this thread will store, and what it needs for that.
  const int pair = threadIdx.x / kColumns, column = threadIdx.x % kColumns;
  const int32_t pair_tile = first_tile + pair / 8;
  const bool stores = pair < s.tiles_a_block * 8 && pair_tile < end_tile && column < rows;
  const TileRows result = stores ? RowsOfTile<kOutput>(a, pair_tile, pair % 8) : TileRows{-1, -1};
  const int64_t result_row = x_first + column;
  QkvTarget target = {};
  float low_before = 0, high_before = 0;
  if constexpr (kOutput == Output::kQkv) {
    if (result.low >= 0) target = TargetOfPair(a, pair_tile * 8 + pair % 8, column);
  } else if constexpr (kOutput == Output::kBf16) {
    if (result.low >= 0) low_before = Before(a, expert, result_row, result.low);
    if (result.high >= 0) high_before = Before(a, expert, result_row, result.high);
  }

  const uint4* x[kTiles];
  if constexpr (kNormed) {
    const uint4* from = reinterpret_cast<const uint4*>(a.x + InputRow(a, x_first) * a.k);
    const int padded = s.chunks * Format::kLaneK / 2;
    const float own = WarpSum(StageNormed(from, a.norm, static_cast<int>(a.k / 8), padded, staged));
    if (lane == 0) squares[warp] = own;
    x[0] = staged + t * (Format::kLaneK / 8);
    __syncthreads();
  } else {
    // The rows into the first-level cache, so that no chunk waits for the second-level one.
    const int lines = static_cast<int>((a.k * 2 + 127) / 128);
    for (int i = threadIdx.x; i < lines * rows; i += kStreamThreads) {
      Touch(a.x + InputRow(a, x_first + i / lines) * a.k + i % lines * 64);
    }
#pragma unroll
    for (int c = 0; c < kTiles; ++c) {  // rows that do not exist repeat the last: never stored
      const int64_t row = x_first + min(c * 8 + g, rows - 1);
      x[c] =
          reinterpret_cast<const uint4*>(a.x + InputRow(a, row) * a.k) + t * (Format::kLaneK / 8);
    }
  }

  float sum[kTiles][4] = {};
  const auto leave = [&] {  // a tile's sums of this warp
    float* to = partial + ((use.tile - first_tile) * kStreamWarps + warp) * 16 * kColumns;
    if constexpr (kNormed) {
      if (t == 0) to[g] = sum[0][0], to[g + 8] = sum[0][2];
    } else {
#pragma unroll
      for (int c = 0; c < kTiles; ++c) {
        float2* low = reinterpret_cast<float2*>(to + g * kColumns + c * 8 + 2 * t);
        *low = make_float2(sum[c][0], sum[c][1]);
        low[4 * kColumns] = make_float2(sum[c][2], sum[c][3]);
      }
    }
#pragma unroll
    for (int c = 0; c < kTiles; ++c) sum[c][0] = sum[c][1] = sum[c][2] = sum[c][3] = 0;
  };
  advance(use, warp, leave);
  for (int stage = 0; use.tile < end_tile; stage = stage + 1 < Format::kStages ? stage + 1 : 0) {
    CopyWait<Format::kStages - 1>();
    const int32_t piece = use.chunk * (Format::kLaneK / 2);  // of 16 bytes of x, of lane 0
    const bool inside = kNormed || (use.chunk * 4 + t) * Format::kLaneK < a.k;
    const auto load_x = [&](int c, int i) {
      return inside ? x[c][piece + i] : make_uint4(0, 0, 0, 0);
    };
    MultiplyChunk<Format, kTiles>(ring.Piece(stage, 0), ring.Piece(stage, 1),
                                  ring.Scales(stage, a, use, 0, t),
                                  ring.Scales(stage, a, use, 1, t), load_x, sum);
    if (fill.tile < end_tile) {
      ring.Fill(stage, s, fill, expert, t);
      advance(fill, kStreamWarps, [] {});
    }
    CopyCommit();
    advance(use, kStreamWarps, leave);
  }
  __syncthreads();

  if (!stores) return;
  float low = 0, high = 0;
  const float* from =
      partial + pair / 8 * (kStreamWarps * 16 * kColumns) + pair % 8 * kColumns + column;
#pragma unroll
  for (int i = 0; i < kStreamWarps; ++i) {
    low += from[i * 16 * kColumns];
    high += from[(i * 16 + 8) * kColumns];
  }
  float factor = Format::kFactor;
  if constexpr (kNormed) {
    float total = 0;
#pragma unroll
    for (int i = 0; i < kStreamWarps; ++i) total += squares[i];
    factor *= rsqrtf(total / static_cast<float>(a.k) + a.eps);
  }
  low *= factor;
  high *= factor;
  if constexpr (kOutput == Output::kGateUp) {
    if (result.low >= 0) StoreGateUp(a, expert, result_row, result.low, low, high);
  } else if constexpr (kOutput == Output::kQkv) {
    StoreQkv(target, low, high);
  } else if constexpr (kOutput == Output::kBf16) {
    Bf16* out = static_cast<Bf16*>(a.out) + result_row * a.n;
    if (result.low >= 0) out[result.low] = __float2bfloat16_rn(low + low_before);
    if (result.high >= 0) out[result.high] = __float2bfloat16_rn(high + high_before);
  } else {
    if (result.low >= 0) StoreResult<kOutput>(a, expert, result_row, result.low, low);
    if (result.high >= 0) StoreResult<kOutput>(a, expert, result_row, result.high, high);
  }
}

// About six blocks a multiprocessor: enough to balance, few enough that what a block does once
// (norm, x) stays small. A thread stores one pair of results at most.
template <class Format, Output kOutput, StreamRows kRows>
OpError RunStream(const MatmulArgs& a, const LaunchContext& context) {
  constexpr int kColumns = StreamColumns(kRows);
  constexpr bool kPairs = kOutput == Output::kGateUp || kOutput == Output::kQkv;
  const int64_t entries = a.expert != nullptr ? a.rows : 1;
  StreamArgs s;
  s.m = a;
  s.tiles = static_cast<int32_t>(kPairs ? (a.n / 2 + 7) / 8 : (a.n + 15) / 16);
  s.chunks = static_cast<int32_t>((a.k + 4 * Format::kLaneK - 1) / (4 * Format::kLaneK));
  const int64_t most = std::min(8, kStreamThreads / (8 * kColumns));
  const int64_t fair = s.tiles * entries / (int64_t{6} * context.multiprocessors);
  s.tiles_a_block = static_cast<int32_t>(std::max<int64_t>(1, std::min(most, fair)));
  size_t shared = StreamRingBytes<Format>() + StreamPartialBytes(s.tiles_a_block, kColumns);
  if (kRows == StreamRows::kNormed) shared += size_t{8} * s.chunks * Format::kLaneK;
  const auto kernel = Stream<Format, kOutput, kRows>;
  SWITCHYARD_RETURN_IF_OP_ERROR(AllowShared(kernel, shared));
  const dim3 grid(static_cast<unsigned>((s.tiles + s.tiles_a_block - 1) / s.tiles_a_block),
                  static_cast<unsigned>(entries));
  return Launch(context, grid, kStreamThreads, shared, kernel, s);
}

template <class Format, Output kOutput>
OpError RunStream(const MatmulArgs& a, const LaunchContext& context) {
  if constexpr (kOutput != Output::kBf16) {  // what is added to the residual was normed long ago
    if (a.norm != nullptr) return RunStream<Format, kOutput, StreamRows::kNormed>(a, context);
  }
  if (a.expert == nullptr && a.rows > 8) {
    return RunStream<Format, kOutput, StreamRows::kSixteen>(a, context);
  }
  return RunStream<Format, kOutput, StreamRows::kEight>(a, context);
}

template <class Format>
OpError RunStream(const MatmulArgs& a, const LaunchContext& context) {
  switch (a.output) {
    case Output::kBf16:
      return RunStream<Format, Output::kBf16>(a, context);
    case Output::kF32:
      return RunStream<Format, Output::kF32>(a, context);
    case Output::kGateUp:
      return RunStream<Format, Output::kGateUp>(a, context);
    case Output::kQkv:
      return RunStream<Format, Output::kQkv>(a, context);
  }
  return {"no such output"};
}

}  // namespace switchyard::kernels::cuda
