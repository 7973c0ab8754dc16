#pragma once

// Who holds which block of the paged KV cache: block tables by slot, pools by group, granules
// within the lease. Pure bookkeeping; memory is committed, released and moved by a KvMemory.

#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/engine/block_pool.h"
#include "worker/engine/kv_layout.h"
#include "worker/engine/kv_room.h"

namespace switchyard::worker {

// What the bookkeeping has done to memory. Calls come in an order in which they may be carried out
// one by one, after all work that was launched before.
class KvMemory {
 public:
  virtual ~KvMemory() = default;
  virtual absl::Status Commit(int32_t group, int32_t granule) = 0;
  virtual absl::Status Release(int32_t group, int32_t granule) = 0;
  virtual absl::Status Move(int32_t group, int32_t from_block, int32_t to_block) = 0;
};

// The blocks that one sequence holds, by group.
using BlockSpans = absl::InlinedVector<BlockSpan, 2>;

class KvCache {
 public:
  KvCache(const KvLayout& layout, int32_t slots, KvMemory& memory);

  // Bytes of granules that may be committed. Lowering it takes effect through Shrink.
  void SetLimit(uint64_t bytes) { limit_ = bytes; }
  uint64_t limit() const { return limit_; }
  uint64_t committed_bytes() const { return committed_bytes_; }
  // Commits what the smallest pool needs, so that a lease that cannot be had fails when it is
  // granted.
  absl::Status CommitSmallest();
  // Releases free granules, and moves live blocks together to free more, until at most `bytes` are
  // committed or nothing more can be released. The caller looks at committed_bytes().
  absl::Status Shrink(uint64_t bytes);

  KvRoom Room() const;
  BlockCounts Held(int32_t slot) const;
  BlockSpans Spans(int32_t slot) const;

  // Frees the blocks that rows from `first` on no longer see.
  void Trim(int32_t slot, int32_t first);
  // Makes the slot hold what a step on rows [first, end) needs. RESOURCE_EXHAUSTED if it does not
  // fit (never when Room says it does, unless the device cannot commit); then it holds what it
  // held.
  absl::Status Extend(int32_t slot, int32_t first, int32_t end);
  // The same for given blocks: a paused sequence comes back into an empty slot.
  absl::Status Reserve(int32_t slot, const BlockSpans& spans);
  void Free(int32_t slot);

  // The slot's row of the group's block table; meaningful within the span it holds.
  const int32_t* Table(int32_t group, int32_t slot) const {
    return groups_[group].table.data() +
           static_cast<size_t>(slot) * layout_.groups[group].table_stride;
  }
  // Calls with every stretch of table entries that has changed since the last call.
  void TakeChanges(
      const std::function<void(int32_t group, int32_t slot, BlockSpan entries)>& visit);

  // Aborts unless tables, pools and sums agree. For tests and test builds.
  void CheckInvariants() const;

 private:
  struct Owner {
    int32_t slot = -1;
    int32_t index = 0;  // of the entry in its table row
  };
  struct Group {
    BlockPool pool;
    std::vector<int32_t> table;      // [slots][table_stride]
    std::vector<BlockSpan> span;     // [slots]
    std::vector<BlockSpan> changed;  // [slots]
    std::vector<Owner> owner;        // by block
  };

  absl::Status ExtendTo(int32_t slot, const BlockSpans& spans);
  absl::Status Obtain(int32_t group, int32_t* block);
  // Makes room in the limit for one more granule of `group`, at the expense of other groups.
  absl::Status MakeRoomFor(int32_t group);
  absl::Status CommitGranule(int32_t group);
  absl::Status ReleaseGranule(int32_t group, int32_t granule);
  // Releases one granule of some group but `except`: a free one, else one that moving blocks frees.
  // False if there is none.
  absl::StatusOr<bool> ReleaseOne(int32_t except);
  absl::Status EmptyHighest(int32_t group);
  void SetEntry(int32_t group, int32_t slot, int32_t index, int32_t block);
  void FreeEntry(int32_t group, int32_t slot, int32_t index);

  const KvLayout& layout_;
  KvMemory& memory_;
  const int32_t slots_;
  std::vector<Group> groups_;
  uint64_t limit_ = 0;
  uint64_t committed_bytes_ = 0;
};

}  // namespace switchyard::worker
