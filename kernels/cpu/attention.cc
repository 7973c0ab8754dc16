// Causal attention over the paged KV, with windows and sinks.
//
// An item of work is a tile (consecutive rows of one sequence) times one kv head and its group of
// query heads. Threads take items in turns, which balances the triangle of a prompt. With too few
// items for the threads (one long sequence at decode), an item is split at the segment borders,
// which are absolute positions, and the states are merged in order afterwards: the same operations
// on the same numbers as without the split.
//
// Reached on two busy cores with AVX-512: one row over 32,768 float32 positions, 8 kv heads of 128:
// 68-70% of the read rate; 256 rows over 8,192: 46-65% of oneDNN's sgemm. Tried: summing each score
// by itself (43% of the read rate), no prefetch (56%).

#include <algorithm>

#include "kernels/cpu/attention_vectors.h"
#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/kv_pages.h"

namespace switchyard::kernels {

void AttentionScratch::Take(ScratchCutter& cut, int threads, int64_t rows, int32_t head_dim,
                            int64_t context) {
  const int64_t state = AttentionState::Floats(head_dim);
  tile_floats = 2 * state + kAttentionQueries * kAttentionBlock;
  first_row = cut.Take<int32_t>(rows + 1);
  tiles = cut.Take<float>(tile_floats * threads);
  segment_room = 2 * threads * (context / kAttentionSegment + 1);
  segments = cut.Take<float>(segment_room * state);
}

namespace {

struct Work {
  const AttentionArgs& args;
  const AttentionScratch& scratch;
  int32_t group;       // query heads of a kv head
  int32_t tile_heads;  // of them in one item
  int32_t head_parts;  // items of a group
  int32_t tile_count;

  int64_t items() const { return int64_t{tile_count} * args.kv_heads * head_parts; }
};

// Rows of a tile, at most; the cut changes no result.
int32_t TileRows(int32_t tile_heads) { return std::max(1, kAttentionQueries / tile_heads); }

// Cuts the rows into tiles: first_row[i] is tile i's first row, [count] the end. Padding rows are
// in tiles of their own kind (slot -1).
int32_t CutTiles(const StepRows& rows, int32_t most, int32_t* first_row) {
  int32_t count = 0;
  for (int32_t t = 0; t < rows.rows; ++t) {
    const bool starts =
        t == 0 || rows.slot[t] != rows.slot[t - 1] || t - first_row[count - 1] == most;
    if (starts) first_row[count++] = t;
  }
  first_row[count] = rows.rows;
  return count;
}

// Head of query i of an item, and its row relative to the tile.
struct Item {
  int32_t first_row, rows, kv_head, first_head, heads;
};

Item ItemOf(const Work& work, int64_t i) {
  const int64_t per_tile = int64_t{work.args.kv_heads} * work.head_parts;
  const int64_t tile = i / per_tile, rest = i % per_tile;
  const int32_t first = work.scratch.first_row[tile];
  const int32_t kv_head = static_cast<int32_t>(rest / work.head_parts);
  const int32_t offset = static_cast<int32_t>(rest % work.head_parts) * work.tile_heads;
  return {first, work.scratch.first_row[tile + 1] - first, kv_head, kv_head * work.group + offset,
          std::min(work.tile_heads, work.group - offset)};
}

AttentionTile TileOf(const AttentionArgs& args, const Item& item) {
  AttentionTile tile;
  tile.slot = args.rows.slot[item.first_row];
  tile.kv_head = item.kv_head;
  tile.head_dim = args.head_dim;
  tile.scale = args.scale;
  for (int32_t r = 0; r < item.rows; ++r) {
    const int64_t row = item.first_row + r, position = args.rows.position[row];
    for (int32_t h = 0; h < item.heads; ++h) {
      const int i = tile.queries++;
      tile.q[i] = static_cast<const float*>(args.q) +
                  (row * args.q_heads + item.first_head + h) * args.head_dim;
      tile.low[i] = args.window > 0 ? std::max<int64_t>(0, position - args.window + 1) : 0;
      tile.high[i] = position + 1;
    }
  }
  return tile;
}

// Segments [first, end) that a tile's queries see any of.
struct Span {
  int64_t first, end;
};
Span SegmentsOf(const AttentionTile& tile) {
  const int64_t low = *std::min_element(tile.low, tile.low + tile.queries);
  const int64_t high = *std::max_element(tile.high, tile.high + tile.queries);
  return {low / kAttentionSegment, (high + kAttentionSegment - 1) / kAttentionSegment};
}

void Finish(const AttentionArgs& args, const Item& item, AttentionState total) {
  int i = 0;
  for (int64_t row = item.first_row; row < item.first_row + item.rows; ++row) {
    for (int32_t head = item.first_head; head < item.first_head + item.heads; ++head, ++i) {
      FinishQuery(total, i, args.head_dim, args.sinks != nullptr ? args.sinks + head : nullptr,
                  static_cast<float*>(args.out) + (row * args.q_heads + head) * args.head_dim);
    }
  }
}

void FillZero(const AttentionArgs& args, const Item& item) {
  for (int64_t row = item.first_row; row < item.first_row + item.rows; ++row) {
    std::fill_n(
        static_cast<float*>(args.out) + (row * args.q_heads + item.first_head) * args.head_dim,
        item.heads * args.head_dim, 0.0f);
  }
}

void RunItem(const Work& work, int64_t i, float* own) {
  const AttentionArgs& args = work.args;
  const Item item = ItemOf(work, i);
  if (args.rows.slot[item.first_row] < 0) return FillZero(args, item);
  const AttentionTile tile = TileOf(args, item);
  const int64_t floats = AttentionState::Floats(args.head_dim);
  const AttentionState total = AttentionState::At(own, args.head_dim);
  const AttentionState segment = AttentionState::At(own + floats, args.head_dim);
  ClearState(tile.queries, args.head_dim, total);
  const Span span = SegmentsOf(tile);
  for (int64_t s = span.first; s < span.end; ++s) {
    AttendSegment(tile, args.kv, s * kAttentionSegment, segment, own + 2 * floats);
    MergeState(tile.queries, args.head_dim, segment, total);
  }
  Finish(args, item, total);
}

}  // namespace

OpError CpuOps::Attention(const AttentionArgs& args, Scratch scratch, Stream stream) {
  if (OpError error = CheckKv(args.kv); !error.ok()) return error;
  if (args.kv_heads < 1 || args.q_heads % args.kv_heads != 0) {
    return {"query heads are not a multiple of kv heads"};
  }
  const int threads = pool_.threads();
  int64_t longest = 0;
  double seen = 0;  // keys of all rows
  for (int32_t t = 0; t < args.rows.rows; ++t) {
    if (args.rows.slot[t] < 0) continue;
    const int64_t context = args.rows.position[t] + 1;
    longest = std::max(longest, context);
    seen += args.window > 0 ? std::min<int64_t>(context, args.window) : context;
  }
  ScratchCutter cut(scratch);
  AttentionScratch s;
  s.Take(cut, threads, args.rows.rows, args.head_dim, longest);
  if (!cut.ok()) return kScratchTooSmall;

  const int32_t group = args.q_heads / args.kv_heads;
  const int32_t heads = std::min(group, kAttentionQueries);
  Work work = {args, s, group, heads, (group + heads - 1) / heads, 0};
  work.tile_count = CutTiles(args.rows, TileRows(heads), s.first_row);
  const int64_t items = work.items();

  constexpr double kWorthThreads = 32768;  // products
  const bool small = seen * args.q_heads * args.head_dim < kWorthThreads;
  const int64_t segments = longest / kAttentionSegment + 1;
  if (small || items >= 2 * threads || segments == 1) {
    const int64_t parts = small ? 1 : std::min<int64_t>(items, threads);
    pool_.ParallelFor(parts, 1, [&](int thread, int64_t begin, int64_t) {
      for (int64_t i = begin; i < items; i += parts) {
        RunItem(work, i, s.tiles + thread * s.tile_floats);
      }
    });
    return {};
  }

  // Fewer items than threads, and long ones: by segment.
  const int64_t floats = AttentionState::Floats(args.head_dim);
  const int64_t pieces = items * segments, parts = std::min<int64_t>(pieces, threads);
  pool_.ParallelFor(parts, 1, [&](int thread, int64_t begin, int64_t) {
    for (int64_t p = begin; p < pieces; p += parts) {
      const Item item = ItemOf(work, p / segments);
      if (args.rows.slot[item.first_row] < 0) continue;
      const AttentionTile tile = TileOf(args, item);
      const Span span = SegmentsOf(tile);
      const int64_t segment = p % segments;
      if (segment < span.first || segment >= span.end) continue;
      AttendSegment(tile, args.kv, segment * kAttentionSegment,
                    AttentionState::At(s.segments + p * floats, args.head_dim),
                    s.tiles + thread * s.tile_floats);
    }
  });
  for (int64_t i = 0; i < items; ++i) {
    const Item item = ItemOf(work, i);
    if (args.rows.slot[item.first_row] < 0) {
      FillZero(args, item);
      continue;
    }
    const AttentionTile tile = TileOf(args, item);
    const AttentionState total = AttentionState::At(s.tiles, args.head_dim);
    ClearState(tile.queries, args.head_dim, total);
    const Span span = SegmentsOf(tile);
    for (int64_t segment = span.first; segment < span.end; ++segment) {
      const float* at = s.segments + (i * segments + segment) * floats;
      MergeState(tile.queries, args.head_dim,
                 AttentionState::At(const_cast<float*>(at), args.head_dim), total);
    }
    Finish(args, item, total);
  }
  return {};
}

}  // namespace switchyard::kernels
