// Scores of a block are a small matrix product (queries by keys) in the register tile that the
// weights use; the values are a second one with the lanes along the head. Keys and values are read
// once for all the heads of a group and all the rows of a tile.

#include "kernels/cpu/attention_vectors.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/hwy_targets.h"
#include "kernels/cpu/kv_pages.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_vectors.cc"
#include "hwy/foreach_target.h"
// After foreach_target.
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernels/cpu/tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace switchyard::kernels {
namespace HWY_NAMESPACE {

inline constexpr float kNothing = -std::numeric_limits<float>::infinity();

template <class K>
HWY_INLINE void PrefetchRow(const K* row, int64_t head_dim) {
  const char* bytes = reinterpret_cast<const char*>(row);
  for (int64_t i = 0; i < head_dim * static_cast<int64_t>(sizeof(K)); i += 64) {
    __builtin_prefetch(bytes + i);
  }
}

// scores[i][j] for keys[begin, end), all queries, seen or not. The processor's own prefetcher loses
// the track at every KV block, so the first queries ask for the keys to come, and for the values
// that the next pass reads.
template <class K>
HWY_INLINE void BlockScores(const AttentionTile& tile, const K* const* keys, const K* const* values,
                            int64_t begin, int64_t end, float* scores) {
  const FloatTag d;
  constexpr int64_t kAhead = 12;
  for (int i = 0; i < tile.queries; i += kTileRows) {
    WithTileRows(std::min(kTileRows, tile.queries - i), [&](auto mt) {
      constexpr int kRows = decltype(mt)::value;
      for (int64_t j = begin; j < end; j += kTileColumns) {
        for (int64_t c = j; i == 0 && c < std::min(j + kTileColumns, end); ++c) {
          if (c + kAhead < end) PrefetchRow(keys[c + kAhead], tile.head_dim);
          PrefetchRow(values[c], tile.head_dim);
        }
        const K* ks[kTileColumns];
        for (int c = 0; c < kTileColumns; ++c) ks[c] = keys[std::min(j + c, end - 1)];
        FloatVec acc[kRows * kTileColumns];
        for (auto& a : acc) a = hn::Zero(d);
        TileDot<kRows, kTileColumns, 0>(tile.q + i, ks, 0, tile.head_dim, acc);
        for (int m = 0; m < kRows; ++m) {
          float sums[kTileColumns];
          SumFour(acc + m * kTileColumns, sums);
          for (int c = 0; c < kTileColumns && j + c < end; ++c) {
            scores[(i + m) * kAttentionBlock + j + c] = sums[c] * tile.scale;
          }
        }
      }
    });
  }
}

// Turns query i's scores into exp(score - largest), zeros where it does not see, and brings its
// state to the new largest. Indices are relative to the block.
HWY_INLINE void BlockSoftmax(int i, int64_t low, int64_t high, int64_t begin, int64_t end,
                             int64_t stride, AttentionState state, float* scores) {
  const FloatTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  float* row = scores + i * kAttentionBlock;
  // Whole vectors at absolute places: the lanes of the sum are those of the positions.
  const int64_t first = begin / lanes * lanes, last = (end + lanes - 1) / lanes * lanes;
  low = std::clamp(low, first, last);
  high = std::clamp(high, low, last);
  std::fill(row + first, row + low, kNothing);
  std::fill(row + high, row + last, kNothing);
  FloatVec largest = hn::Set(d, kNothing);
  auto nan = hn::IsNaN(largest);
  for (int64_t j = first; j < last; j += lanes) {
    const FloatVec score = hn::LoadU(d, row + j);
    largest = hn::Max(largest, score);
    nan = hn::Or(nan, hn::IsNaN(score));
  }
  const float block_largest = hn::AllFalse(d, nan) ? hn::GetLane(hn::MaxOfLanes(d, largest))
                                                   : std::numeric_limits<float>::quiet_NaN();
  if (block_largest == kNothing) {
    std::fill(row + first, row + last, 0.0f);
    return;
  }
  // NaN if the block's is, and then the state is NaN from here on.
  const float now = state.largest[i] > block_largest ? state.largest[i] : block_largest;
  const FloatVec offset = hn::Set(d, now);
  FloatVec sum = hn::Zero(d);
  for (int64_t j = first; j < last; j += lanes) {
    const FloatVec e = hn::Exp(d, hn::Sub(hn::LoadU(d, row + j), offset));
    hn::StoreU(e, d, row + j);
    sum = hn::Add(sum, e);
  }
  const float shrink = std::exp(state.largest[i] - now);
  state.largest[i] = now;
  state.sum[i] = state.sum[i] * shrink + Sum(sum);
  if (shrink != 1.0f) {
    const FloatVec factor = hn::Set(d, shrink);
    float* values = state.values + i * stride;
    for (int64_t k = 0; k < stride; k += lanes) {
      hn::StoreU(hn::Mul(hn::LoadU(d, values + k), factor), d, values + k);
    }
  }
}

// NT vectors of `MT` queries' accumulators += probabilities times values; `count` < lanes: the
// last, partial vector of a head.
template <int MT, int NT, class K>
HWY_INLINE void AddValues(const float* probabilities, const K* const* rows, int64_t begin,
                          int64_t end, int64_t k, int64_t count, int64_t stride, float* values) {
  const FloatTag d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  FloatVec acc[MT][NT];
#pragma GCC unroll 8
  for (int m = 0; m < MT; ++m) {
#pragma GCC unroll 8
    for (int c = 0; c < NT; ++c) acc[m][c] = hn::LoadU(d, values + m * stride + k + c * lanes);
  }
  for (int64_t j = begin; j < end; ++j) {
    FloatVec p[MT];
#pragma GCC unroll 8
    for (int m = 0; m < MT; ++m) p[m] = hn::Set(d, probabilities[m * kAttentionBlock + j]);
#pragma GCC unroll 8
    for (int c = 0; c < NT; ++c) {
      const K* at = rows[j] + k + c * lanes;
      const FloatVec v = count < lanes ? LoadSome(d, at, count) : LoadFloats(d, at);
#pragma GCC unroll 8
      for (int m = 0; m < MT; ++m) acc[m][c] = hn::MulAdd(p[m], v, acc[m][c]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < MT; ++m) {
#pragma GCC unroll 8
    for (int c = 0; c < NT; ++c) hn::StoreU(acc[m][c], d, values + m * stride + k + c * lanes);
  }
}

template <class K>
HWY_INLINE void BlockValues(const AttentionTile& tile, const K* const* rows, int64_t begin,
                            int64_t end, int64_t stride, const float* scores, float* values) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(FloatTag()));
  for (int i = 0; i < tile.queries; i += kTileRows) {
    const float* p = scores + i * kAttentionBlock;
    float* to = values + i * stride;
    WithTileRows(std::min(kTileRows, tile.queries - i), [&](auto mt) {
      constexpr int kRows = decltype(mt)::value;
      int64_t k = 0;
      for (; k + kTileColumns * lanes <= tile.head_dim; k += kTileColumns * lanes) {
        AddValues<kRows, kTileColumns>(p, rows, begin, end, k, lanes, stride, to);
      }
      for (; k < tile.head_dim; k += lanes) {
        AddValues<kRows, 1>(p, rows, begin, end, k, std::min(lanes, tile.head_dim - k), stride, to);
      }
    });
  }
}

template <class K>
HWY_INLINE void Segment(const AttentionTile& tile, const KvView& kv, int64_t begin,
                        AttentionState state, float* scores) {
  const int64_t stride = AttentionStride(tile.head_dim);
  const int64_t low = *std::min_element(tile.low, tile.low + tile.queries);
  const int64_t high = *std::max_element(tile.high, tile.high + tile.queries);
  const K* keys[kAttentionBlock];
  const K* values[kAttentionBlock];
  for (int64_t block = begin; block < begin + kAttentionSegment; block += kAttentionBlock) {
    const int64_t from = std::max(low, block) - block;
    const int64_t to = std::min(high, block + kAttentionBlock) - block;
    if (from >= to) continue;
    for (int64_t j = from; j < to; ++j) {
      const int64_t at =
          KvOffset(kv, 0, tile.slot, block + j, tile.kv_head, tile.head_dim, sizeof(K));
      const char* base = static_cast<const char*>(kv.base) + at;
      keys[j] = reinterpret_cast<const K*>(base + kv.key_offset);
      values[j] = reinterpret_cast<const K*>(base + kv.value_offset);
    }
    BlockScores(tile, keys, values, from, to, scores);
    for (int i = 0; i < tile.queries; ++i) {
      BlockSoftmax(i, tile.low[i] - block, tile.high[i] - block, from, to, stride, state, scores);
    }
    BlockValues(tile, values, from, to, stride, scores, state.values);
  }
}

void SegmentF32(const AttentionTile& tile, const KvView& kv, int64_t begin, AttentionState state,
                float* scores) {
  Segment<float>(tile, kv, begin, state, scores);
}
void SegmentBf16(const AttentionTile& tile, const KvView& kv, int64_t begin, AttentionState state,
                 float* scores) {
  Segment<Bf16>(tile, kv, begin, state, scores);
}

}  // namespace HWY_NAMESPACE
}  // namespace switchyard::kernels
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace switchyard::kernels {

HWY_EXPORT(SegmentF32);
HWY_EXPORT(SegmentBf16);

namespace {
constexpr float kNone = -std::numeric_limits<float>::infinity();
}  // namespace

void AttendSegment(const AttentionTile& tile, const KvView& kv, int64_t begin, AttentionState state,
                   float* scores) {
  ClearState(tile.queries, tile.head_dim, state);
  if (kv.dtype == DType::kBF16) {
    HWY_DYNAMIC_DISPATCH(SegmentBf16)(tile, kv, begin, state, scores);
  } else {
    HWY_DYNAMIC_DISPATCH(SegmentF32)(tile, kv, begin, state, scores);
  }
}

void ClearState(int queries, int64_t head_dim, AttentionState state) {
  std::fill_n(state.largest, queries, kNone);
  std::fill_n(state.sum, queries, 0.0f);
  std::fill_n(state.values, queries * AttentionStride(head_dim), 0.0f);
}

void MergeState(int queries, int64_t head_dim, AttentionState segment, AttentionState total) {
  const int64_t stride = AttentionStride(head_dim);
  for (int i = 0; i < queries; ++i) {
    if (segment.largest[i] == kNone) continue;
    const float now = std::max(total.largest[i], segment.largest[i]);
    const float old_factor = std::exp(total.largest[i] - now);
    const float new_factor = std::exp(segment.largest[i] - now);
    total.largest[i] = now;
    total.sum[i] = total.sum[i] * old_factor + segment.sum[i] * new_factor;
    float* to = total.values + i * stride;
    const float* from = segment.values + i * stride;
    for (int64_t k = 0; k < head_dim; ++k) to[k] = to[k] * old_factor + from[k] * new_factor;
  }
}

void FinishQuery(AttentionState total, int i, int64_t head_dim, const float* sink, float* out) {
  float factor = 1.0f, sum = total.sum[i];
  if (sink != nullptr) {
    const float now = std::max(total.largest[i], *sink);
    factor = std::exp(total.largest[i] - now);
    sum = sum * factor + std::exp(*sink - now);
  }
  const float* values = total.values + i * AttentionStride(head_dim);
  for (int64_t k = 0; k < head_dim; ++k) out[k] = values[k] * factor / sum;
}

}  // namespace switchyard::kernels
#endif  // HWY_ONCE
