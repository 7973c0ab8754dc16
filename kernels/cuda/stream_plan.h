#pragma once

// How a product of one row, or of a few, streams its weights through shared memory
// (stream_matmul.cuh), as plain data.

#include <cstdint>

#include "kernels/ops.h"

namespace switchyard::kernels::cuda {

constexpr int kStreamTeams = 2;    // of a block, at most: each has its ring and its tiles
constexpr int kStreamRows = 16;    // weight rows of a tile
constexpr int kStreamWarps = 8;    // of a team that multiply
constexpr int kStreamCopiers = 2;  // of a team that copy, half of a tile's rows each
constexpr int kStreamTeamThreads = (kStreamWarps + kStreamCopiers) * 32;
constexpr int kStreamSegment = 1024;     // bytes of a weight row in a stage, at most
constexpr int kStreamStages = 8;         // at most
constexpr int kStreamRowPad = 64;        // bytes behind each row in a stage: two rows, other banks
constexpr int kStreamBatch = 8;          // tiles whose sums are added up at once
constexpr int kStreamMany = 8;           // rows of x, at most
constexpr int kStreamManyQuantized = 4;  // of int4 rows take two columns; of fp8 a batch is faster
constexpr int kStreamBatchMany = 4;  // tiles whose sums are added up at once, where x has several
constexpr int kTargetBytes = kStreamBatch * 8 * 32;  // of where a batch's pairs go

struct StreamPlan {
  int32_t blocks = 0, teams = 0;  // of all entries; of a block
  int32_t tiles = 0;              // of an entry: team t of its block b takes b + t blocks, ...
  int32_t passes = 1;             // experts of which each tile is the sum
  bool split = false;  // a block's teams share its tiles: team t takes passes t + teams, ...
  int32_t row_bytes = 0;
  int32_t segment = 0, segments = 0;           // of a row; the last may be shorter
  int32_t stages = 0, stage_bytes = 0;         // of each team's ring
  int32_t early_in_flight = 0, in_flight = 0;  // of them are on their way, until x is there; then
  int32_t x_pieces = 0;                        // of 16 bytes, with zeros behind a pass's row
  int32_t x_stride = 0, chunks_stride = 0;     // bytes of a row of x, or of a pass's; what is known
  int32_t scale_bytes = 0, zero_bytes = 0;     // of a row
  int32_t scale_stride = 0, zero_stride = 0;   // of a row in shared memory
  bool whole_scales = false;                   // every row's begin at a multiple of 16 bytes
  int32_t slots = 0;                           // of tiles' scales and zeros
  // Offsets in shared memory, and its size. x is the block's; a team's part, of team_bytes, begins
  // with its ring.
  int32_t x_at = 0, chunks_at = 0;
  int32_t teams_at = 0, team_bytes = 0;
  int32_t scales_at = 0, zeros_at = 0, partial_at = 0, targets_at = 0;  // of a team's part
  int32_t shared_bytes = 0;
};

#ifdef __CUDACC__
#define SWITCHYARD_ON_BOTH __host__ __device__
#else
#define SWITCHYARD_ON_BOTH
#endif

// Entries share the blocks as evenly as may be, so that none is left over: block `block` of
// `blocks` is one of the `count` blocks of an entry, from `first` on.
struct EntryBlocks {
  int32_t entry, first, count;
};
SWITCHYARD_ON_BOTH inline EntryBlocks BlocksOfEntry(int32_t block, int32_t blocks,
                                                    int32_t entries) {
  const int32_t entry = ((block + 1) * entries - 1) / blocks;
  const int32_t first = entry * blocks / entries;
  return {entry, first, (entry + 1) * blocks / entries - first};
}

// Of a matrix whose x has so many rows; `targets`: results go to q and KV; `entries`: chosen
// experts, each with its row of x, or 1; `passes`: of one entry that sums up so many experts. A
// plan that the capability has no room for says so by its size: more than StreamShared of it.
StreamPlan PlanStream(const Matrix& w, int64_t rows, bool targets, int64_t entries, int capability,
                      int multiprocessors, int64_t passes = 1);
// Whether experts are better passes of one entry than entries whose results another kernel adds up:
// if no block has more to do for it.
bool SumsEntries(const Matrix& w, int64_t entries, int capability, int multiprocessors);
constexpr int64_t kMostPasses = 32;  // a lane each
int64_t StreamShared(int capability);

}  // namespace switchyard::kernels::cuda
