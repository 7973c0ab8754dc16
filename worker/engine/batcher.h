#pragma once

// What the next step does. Pure: takes a picture of the sequences and the room, returns a decision.
//
// 1. Running sequences come first, by priority, then arrival. Each gets the blocks that its next
//    rows need; where they do not fit, suspended sequences and then the lowest in that order are
//    paused. One row each for those that decode, then whole chunks of prompt while rows are left.
// 2. Paused sequences come back, first in first out, when what they held and need next fits.
// 3. Waiting sequences are admitted, in the order of waiting_queue.h, when all of their prompt fits
//    beside what the running ones are known to need. Nobody overtakes one that does not fit.
// Who comes in, either way, takes the slots and blocks of suspended sequences where there are no
// others: they are paused, and queue with the paused ones once their clients read again.
// A sequence that runs alone always fits (the smallest pool holds it), so somebody always goes on.

#include <cstdint>
#include <span>
#include <vector>

#include "worker/engine/kv_layout.h"
#include "worker/engine/kv_room.h"

namespace switchyard::worker {

// A sequence as the batcher sees it.
struct BatchItem {
  int32_t priority = 0;
  uint64_t arrival = 0;
  bool suspended = false;
  int32_t computed = 0;     // positions with KV, counting steps that have been launched
  int32_t length = 0;       // tokens, counting those that launched steps will draw
  int32_t most_length = 0;  // prompt and all tokens asked for
  bool complete = false;    // its last token has been launched: needs no row any more
  BlockCounts held;         // running: blocks; paused: blocks that come back with it
};

struct BatchInput {
  std::span<const BatchItem> running;
  std::span<const BatchItem> paused;   // first in first out
  std::span<const BatchItem> waiting;  // in order of admission
  KvRoom room;                         // with what running sequences hold counted as used
  uint64_t admission_limit = 0;  // bytes of KV that newcomers may count on; at most room.limit
  bool resume = true;            // false: no sequence comes in
  bool admit = true;             // false: no waiting one does
  int32_t free_slots = 0;
  int32_t step_rows = 0;  // at least prefill_chunk + max_sequences
  int32_t prefill_chunk = 0;
  const KvLayout* layout = nullptr;
};

// Rows [first, end) of a sequence. The last one draws a token if `end` is its length.
struct BatchRows {
  enum class From : uint8_t { kRunning, kPaused, kWaiting };
  From from = From::kRunning;
  int32_t index = 0;  // into that list
  int32_t first = 0, end = 0;
};

struct BatchPlan {
  std::vector<int32_t> pause;   // of running, to be carried out first, in this order
  std::vector<int32_t> resume;  // of paused
  std::vector<int32_t> admit;   // of waiting
  std::vector<BatchRows> rows;
};

// True if `a` goes before `b`.
bool RanksBefore(const BatchItem& a, const BatchItem& b);

// The end of the next rows of a sequence: the next absolute multiple of the chunk, or its length.
int32_t NextRowsEnd(int32_t computed, int32_t length, int32_t prefill_chunk);

BatchPlan PlanBatch(const BatchInput& input);

// Which running sequences to pause, lowest first, until the rest fits into `limit` bytes.
std::vector<int32_t> ChooseToPause(std::span<const BatchItem> running, KvRoom room, uint64_t limit);

}  // namespace switchyard::worker
