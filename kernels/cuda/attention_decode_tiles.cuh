#pragma once

// What a block of attention_decode.cu has, and how its warps get at their keys and values.

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_tile.cuh"

namespace switchyard::kernels::cuda {

constexpr int kDecodeHeads = 16;  // query heads of a block
constexpr int kTileKeys = 16;

__host__ __device__ constexpr int WarpsOf(int dim) { return dim > 128 ? 2 : 4; }
__host__ __device__ constexpr int StagesOf(int dim) { return dim < 128 ? 4 : 3; }
// Keys that the warps of a block take at a time.
__host__ __device__ constexpr int KeysOf(int dim) { return kTileKeys * WarpsOf(dim); }

// What parts are a multiple of: all warps' tiles; where one wave of blocks is cut finely into long
// parts, one warp's, so that they are even.
template <int kDim>
__device__ inline int AlignmentOf(int32_t keys, int splits) {
  return splits > 8 && keys > splits * 4 * KeysOf(kDim) ? kTileKeys : KeysOf(kDim);
}

// Keys [low, high) that a part reads, low a multiple of a tile, and how many parts read any.
struct Part {
  int32_t low, high, parts;
};
template <int kDim>
__device__ inline Part PartOf(int32_t first, int32_t end, int split, int splits) {
  const int keys = AlignmentOf<kDim>(end - first, splits);
  first = first / keys * keys;
  const int32_t per_split = ((end - first + splits - 1) / splits + keys - 1) / keys * keys;
  const int32_t low = first + split * per_split;
  return {low, min(end, low + per_split), (end - first + per_split - 1) / per_split};
}

__device__ inline int32_t FirstKey(int32_t position, int32_t window) {
  return window > 0 ? max(0, position - window + 1) : 0;
}

// Sequence `s`, if it has one row: that row, its slot and its position; else row is -1.
struct OnlyRow {
  int32_t row, slot, position;
};
__device__ inline OnlyRow OnlyRowOf(const StepRows& rows, int s) {
  const int32_t row = rows.sequence_row[s], next = rows.sequence_row[s + 1];
  if (next - row != 1) return {-1, 0, 0};
  const int32_t slot = rows.slot[row], position = rows.position[row];
  return {slot < 0 ? -1 : row, slot, position};
}

template <int kDim, bool kFp8>
using DecodeTile = KvTile<kDim, kTileKeys, kWarp, kFp8>;
// Shared memory of a warp in 16-byte pieces: the ring, and one widened tile of fp8.
template <int kDim, bool kFp8>
__host__ __device__ constexpr int WarpPieces() {
  using Tile = DecodeTile<kDim, kFp8>;
  return StagesOf(kDim) * 2 * Tile::kHalf + (kFp8 ? 2 * Tile::kWideHalf : 0);
}

// The newest key and value, which the kernel in front writes: into a row of a warp's tile.
template <int kDim, bool kFp8>
class NewestRow {
 public:
  using Tile = DecodeTile<kDim, kFp8>;
  using Element = typename Tile::Element;

  __device__ NewestRow(const KvView& kv, const OnlyRow& only, int32_t kv_head)
      : key_(KvRowOf<Element>(kv, kv.key_offset, only.slot, only.position, kv_head, kDim)),
        value_(key_ + (kv.value_offset - kv.key_offset) / static_cast<int64_t>(sizeof(Element))) {}

  __device__ void Copy(int row, uint4* tile) const {
    constexpr int kStep = 16 / sizeof(Element);
#pragma unroll
    for (int i = threadIdx.x % kWarp; i < 2 * Tile::kPieces; i += kWarp) {
      const bool is_key = i < Tile::kPieces;
      const int piece = i % Tile::kPieces;
      CopyAsync(Tile::At(is_key ? tile : tile + Tile::kHalf, row, piece),
                (is_key ? key_ : value_) + piece * kStep, true);
    }
  }

 private:
  const Element *key_, *value_;
};

// What a block has: a sequence's row, heads that share a KV head, and a part of the keys.
struct DecodeBlock {
  OnlyRow only;
  int32_t kv_head, first_head, heads;
  int32_t first_key;  // that the row sees
  Part part;
};
// Whether there is any.
template <int kDim>
__device__ inline bool BlockOf(const AttentionArgs& a, int groups, DecodeBlock& out) {
  out.only = OnlyRowOf(a.rows, blockIdx.z);
  if (out.only.row < 0) return false;
  const int32_t ratio = a.q_heads / a.kv_heads;
  out.kv_head = blockIdx.y / groups;
  out.first_head = out.kv_head * ratio + blockIdx.y % groups * kDecodeHeads;
  out.heads = min(kDecodeHeads, (out.kv_head + 1) * ratio - out.first_head);
  out.first_key = FirstKey(out.only.position, a.window);
  out.part = PartOf<kDim>(out.first_key, out.only.position + 1, blockIdx.x, gridDim.x);
  return out.part.low < out.part.high;
}

// A warp's tiles of a part, through its ring.
template <int kDim, bool kFp8>
class WarpTiles {
 public:
  using Tile = DecodeTile<kDim, kFp8>;

  __device__ WarpTiles(const KvView& kv, const DecodeBlock& block, uint4* ring)
      : kv_(kv),
        block_(block),
        ring_(ring),
        own_(block.part.low + static_cast<int>(threadIdx.x) / kWarp * kTileKeys),
        count_(own_ < block.part.high ? (block.part.high - own_ + kKeys - 1) / kKeys : 0),
        newest_row_(block.only.position - (own_ + (count_ - 1) * kKeys)),
        adds_newest_(block.part.high > block.only.position && newest_row_ >= 0 &&
                     newest_row_ < kTileKeys && count_ > 0 && count_ < kStages),
        newest_(kv, block.only, block.kv_head) {}

  __device__ int count() const { return count_; }
  __device__ int32_t Position(int i) const { return own_ + i * kKeys; }

  // Only the newest key and value are the kernel's in front.
  __device__ void AskBeforeWait() const {
#pragma unroll
    for (int i = 0; i < kStages - 1; ++i) Copy(i, min(block_.part.high, block_.only.position));
  }
  // A warp whose last tile has them, and is asked for before the wait, adds them after it.
  __device__ void AddNewest() const {
    if (!adds_newest_) return;
    CopyWait<0>();  // zeros came in their place
    __syncwarp();
    newest_.Copy(newest_row_, StageOf(count_ - 1));
    CopyCommit();
  }
  // Tile i as bf16, keys then values. The one before is read.
  __device__ uint4* Take(int i) const {
    __syncwarp();
    Copy(i + kStages - 1, block_.part.high);
    if (adds_newest_) {
      CopyWait<0>();
    } else {
      CopyWait<kStages - 1>();
    }
    __syncwarp();
    uint4* keys = StageOf(i);
    if constexpr (kFp8) {
      uint4* wide = ring_ + kStages * 2 * Tile::kHalf;
      Tile::Widen(keys, threadIdx.x % kWarp, wide);
      __syncwarp();
      keys = wide;
    }
    return keys;
  }

 private:
  static constexpr int kStages = StagesOf(kDim), kKeys = KeysOf(kDim);

  __device__ uint4* StageOf(int i) const { return ring_ + i % kStages * 2 * Tile::kHalf; }
  __device__ void Copy(int i, int32_t end) const {
    if (i < count_) {
      Tile::Copy(kv_, block_.only.slot, block_.kv_head, Position(i), block_.first_key, end,
                 threadIdx.x % kWarp, StageOf(i));
    }
    CopyCommit();
  }

  const KvView& kv_;
  const DecodeBlock& block_;
  uint4* const ring_;
  const int32_t own_;  // the first key
  const int count_;
  const int32_t newest_row_;  // of the last tile
  const bool adds_newest_;
  const NewestRow<kDim, kFp8> newest_;
};

}  // namespace switchyard::kernels::cuda
