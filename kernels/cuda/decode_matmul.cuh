#pragma once

// Product of quantized weights with 2 to 16 rows: decode of a few sequences.
//
// The weights are the left operand of mma.m16n8k16: which k a tensor core multiplies first does not
// matter, so a lane takes neighbouring columns of its two weight rows, 16 bytes each, and the same
// columns of its row of x. A warp's tile is 16 weight rows; of gate and up and of rotated pairs the
// partners are the two rows of one lane. A block makes a few tiles; their items (128 bytes of each
// row) go round its eight warps, which add up in shared memory at the end.
//
// Every thread has a ring of its own in shared memory, filled by cp.async and read by no one else:
// no barrier, few registers, and 48 KiB of weights a block in flight. The ring is filled before the
// kernel waits for the one in front, which hides the gap between them. x comes from the caches.

#include <algorithm>

#include "kernels/cuda/decode_ring.cuh"
#include "kernels/cuda/multiply_chunk.cuh"

namespace switchyard::kernels::cuda {

__host__ __device__ constexpr size_t DecodePartialBytes(int tiles, int columns) {
  return size_t{kDecodeWarps} * tiles * 16 * columns * sizeof(float);
}

// kColumns, 8 or 16: rows of x at most.
template <class Format, Output kOutput, int kColumns>
__global__ __launch_bounds__(kDecodeThreads,
                             kColumns == 16 ? 2 : 3) void Decode(const DecodeArgs s) {
  constexpr int kTiles = kColumns / 8, kLanePieces = Format::kLaneK / 8;  // of x, 16 bytes each
  extern __shared__ uint4 shared[];
  const MatmulArgs& a = s.m;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp, g = lane / 4, t = lane % 4;
  const int32_t first_tile = blockIdx.x * s.tiles_a_block;
  const int32_t end_tile = min(s.tiles, first_tile + s.tiles_a_block);
  float* partial = reinterpret_cast<float*>(shared + DecodeRingBytes<Format>() / sizeof(uint4));

  GridTrigger();
  const int rows = a.rows;
  const DecodeRing<Format> ring(shared);
  DecodeCursor<Format, kOutput> fill, use;
  const auto advance = [&](auto& c, int items, const auto& leave) {
    c.item += items;
    while (c.item >= s.items && c.tile < end_tile) {
      c.item -= s.items;
      leave();
      c.Enter(s, c.tile + 1, g, t);
    }
  };
  fill.item = 0;
  fill.Enter(s, first_tile, g, t);
  use = fill;
  advance(fill, warp, [] {});
#pragma unroll
  for (int stage = 0; stage < kDecodeStages; ++stage) {
    if (fill.tile < end_tile) {
      ring.Fill(stage, s, fill, t);
      advance(fill, kDecodeWarps, [] {});
    }
    CopyCommit();
  }
  GridWait();

  // Which pair of results this thread will store, and what it needs for that.
  const int pair = threadIdx.x / kColumns, column = threadIdx.x % kColumns;
  const int32_t pair_tile = first_tile + pair / 8;
  const bool stores = pair < s.tiles_a_block * 8 && pair_tile < end_tile && column < rows;
  const TileRows result = stores ? RowsOfTile<kOutput>(a, pair_tile, pair % 8) : TileRows{-1, -1};
  QkvTarget target = {};
  float low_before = 0, high_before = 0;
  if constexpr (kOutput == Output::kQkv) {
    if (result.low >= 0) target = TargetOfPair(a, pair_tile * 8 + pair % 8, column);
  } else if constexpr (kOutput == Output::kBf16) {
    if (result.low >= 0) low_before = Before(a, 0, column, result.low);
    if (result.high >= 0) high_before = Before(a, 0, column, result.high);
  }

  // The rows into the first-level cache, as far as they fit.
  const int lines = static_cast<int>((a.k * 2 + 127) / 128);
  for (int i = threadIdx.x; i < lines * rows; i += kDecodeThreads) {
    Touch(a.x + InputRow(a, i / lines) * a.k + i % lines * 64);
  }
  const uint4* x[kTiles];  // the lane's first piece of each row
#pragma unroll
  for (int c = 0; c < kTiles; ++c) {  // rows that do not exist repeat the last: never stored
    const int64_t row = InputRow(a, min(c * 8 + g, rows - 1));
    x[c] = reinterpret_cast<const uint4*>(a.x + row * a.k) + t * kLanePieces;
  }

  float sum[kTiles][4] = {};
  const auto leave = [&] {  // a tile's sums of this warp
    float* to = partial + ((use.tile - first_tile) * kDecodeWarps + warp) * 16 * kColumns;
#pragma unroll
    for (int c = 0; c < kTiles; ++c) {
      float2* low = reinterpret_cast<float2*>(to + g * kColumns + c * 8 + 2 * t);
      *low = make_float2(sum[c][0], sum[c][1]);
      low[4 * kColumns] = make_float2(sum[c][2], sum[c][3]);
      sum[c][0] = sum[c][1] = sum[c][2] = sum[c][3] = 0;
    }
  };
  advance(use, warp, leave);
  for (int stage = 0; use.tile < end_tile; stage = stage + 1 < kDecodeStages ? stage + 1 : 0) {
    CopyWait<kDecodeStages - 1>();
#pragma unroll
    for (int p = 0; p < 2; ++p) {
      const int32_t chunk = use.item * 2 + p;
      const bool inside = (chunk * 4 + t) * Format::kLaneK < a.k;
      const auto load_x = [&](int c, int i) {
        return inside ? x[c][chunk * (4 * kLanePieces) + i] : make_uint4(0, 0, 0, 0);
      };
      MultiplyChunk<Format, false, kTiles>(ring.Piece(stage, p, 0), ring.Piece(stage, p, 1),
                                           ring.Scales(stage, s, use, p, 0, t),
                                           ring.Scales(stage, s, use, p, 1, t), load_x, sum);
    }
    if (fill.tile < end_tile) {
      ring.Fill(stage, s, fill, t);
      advance(fill, kDecodeWarps, [] {});
    }
    CopyCommit();
    advance(use, kDecodeWarps, leave);
  }
  __syncthreads();

  if (!stores) return;
  float low = 0, high = 0;
  const float* from =
      partial + pair / 8 * (kDecodeWarps * 16 * kColumns) + pair % 8 * kColumns + column;
#pragma unroll
  for (int i = 0; i < kDecodeWarps; ++i) {
    low += from[i * 16 * kColumns];
    high += from[(i * 16 + 8) * kColumns];
  }
  low *= Format::kFactor;
  high *= Format::kFactor;
  if constexpr (kOutput == Output::kGateUp) {
    if (result.low >= 0) StoreGateUp(a, 0, column, result.low, low, high);
  } else if constexpr (kOutput == Output::kQkv) {
    StoreQkv(target, low, high);
  } else if constexpr (kOutput == Output::kBf16) {
    Bf16* out = static_cast<Bf16*>(a.out) + column * a.n;
    if (result.low >= 0) out[result.low] = __float2bfloat16_rn(low + low_before);
    if (result.high >= 0) out[result.high] = __float2bfloat16_rn(high + high_before);
  } else {
    if (result.low >= 0) StoreResult<kOutput>(a, 0, column, result.low, low);
    if (result.high >= 0) StoreResult<kOutput>(a, 0, column, result.high, high);
  }
}

template <class Format>
size_t DecodeSharedBytes(const DecodeArgs& s, int columns) {
  return DecodeRingBytes<Format>() + DecodePartialBytes(s.tiles_a_block, columns);
}

// A few blocks a multiprocessor. A thread stores one pair of results at most.
template <class Format, Output kOutput>
DecodeArgs PlanDecode(const MatmulArgs& a, int columns, const LaunchContext& context) {
  constexpr bool kPairs = kOutput == Output::kGateUp || kOutput == Output::kQkv;
  const int64_t item_k = 8 * Format::kLaneK;
  DecodeArgs s;
  s.m = a;
  s.tiles = static_cast<int32_t>(kPairs ? (a.n / 2 + 7) / 8 : (a.n + 15) / 16);
  s.items = static_cast<int32_t>((a.k + item_k - 1) / item_k);
  s.ragged = a.k % item_k != 0;
  const int64_t most = kDecodeThreads / (8 * columns);
  const int64_t blocks = int64_t{context.decode_blocks} * context.multiprocessors;
  const int64_t fair = (s.tiles + blocks - 1) / blocks;
  s.tiles_a_block = static_cast<int32_t>(std::min(most, fair));
  const size_t limit = SharedLimit(context.capability) - 1024;  // and what is declared statically
  while (s.tiles_a_block > 1 && DecodeSharedBytes<Format>(s, columns) > limit) --s.tiles_a_block;
  return s;
}

template <class Format, Output kOutput, int kColumns>
OpError RunDecode(const MatmulArgs& a, const LaunchContext& context) {
  const DecodeArgs s = PlanDecode<Format, kOutput>(a, kColumns, context);
  const auto kernel = Decode<Format, kOutput, kColumns>;
  const size_t shared = DecodeSharedBytes<Format>(s, kColumns);
  SWITCHYARD_RETURN_IF_OP_ERROR(AllowShared(kernel, shared));
  const dim3 grid(static_cast<unsigned>((s.tiles + s.tiles_a_block - 1) / s.tiles_a_block));
  return Launch(context, grid, kDecodeThreads, shared, kernel, s);
}

template <class Format, Output kOutput>
OpError RunDecode(const MatmulArgs& a, const LaunchContext& context) {
  return a.rows <= 8 ? RunDecode<Format, kOutput, 8>(a, context)
                     : RunDecode<Format, kOutput, 16>(a, context);
}

template <class Format>
OpError RunDecode(const MatmulArgs& a, const LaunchContext& context) {
  switch (a.output) {
    case Output::kBf16:
      return RunDecode<Format, Output::kBf16>(a, context);
    case Output::kF32:
      return RunDecode<Format, Output::kF32>(a, context);
    case Output::kGateUp:
      return RunDecode<Format, Output::kGateUp>(a, context);
    case Output::kQkv:
      return RunDecode<Format, Output::kQkv>(a, context);
  }
  return {"no such output"};
}

}  // namespace switchyard::kernels::cuda
