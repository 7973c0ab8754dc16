#include "worker/engine/kv_cache.h"

#include <algorithm>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"

namespace switchyard::worker {

KvCache::KvCache(const KvLayout& layout, int32_t slots, KvMemory& memory)
    : layout_(layout), memory_(memory), slots_(slots) {
  for (const KvGroup& group : layout.groups) {
    const size_t blocks = static_cast<size_t>(group.granules) * group.blocks_per_granule;
    groups_.push_back({BlockPool(group.granules, group.blocks_per_granule),
                       std::vector<int32_t>(static_cast<size_t>(slots) * group.table_stride, 0),
                       std::vector<BlockSpan>(slots), std::vector<BlockSpan>(slots),
                       std::vector<Owner>(blocks)});
  }
}

// ---- Granules

absl::Status KvCache::CommitGranule(int32_t group) {
  const int32_t granule = groups_[group].pool.LowestUncommitted();
  SY_CHECK(granule >= 0);
  RETURN_IF_ERROR(memory_.Commit(group, granule));
  groups_[group].pool.Add(granule);
  committed_bytes_ += layout_.groups[group].granule_bytes;
  return absl::OkStatus();
}

absl::Status KvCache::ReleaseGranule(int32_t group, int32_t granule) {
  RETURN_IF_ERROR(memory_.Release(group, granule));
  groups_[group].pool.Remove(granule);
  committed_bytes_ -= layout_.groups[group].granule_bytes;
  return absl::OkStatus();
}

absl::Status KvCache::CommitSmallest() {
  for (size_t i = 0; i < groups_.size(); ++i) {
    const KvGroup& shape = layout_.groups[i];
    const int32_t want =
        (shape.smallest_blocks + shape.blocks_per_granule - 1) / shape.blocks_per_granule;
    while (groups_[i].pool.committed_granules() < want &&
           committed_bytes_ + shape.granule_bytes <= limit_) {
      RETURN_IF_ERROR(CommitGranule(static_cast<int32_t>(i)));
    }
  }
  return absl::OkStatus();
}

absl::Status KvCache::Shrink(uint64_t bytes) {
  while (committed_bytes_ > bytes) {
    absl::StatusOr<bool> released = ReleaseOne(-1);
    RETURN_IF_ERROR(released.status());
    if (!*released) break;
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> KvCache::ReleaseOne(int32_t except) {
  // 1. A granule that is free already.
  for (size_t i = 0; i < groups_.size(); ++i) {
    if (static_cast<int32_t>(i) == except) continue;
    const int32_t granule = groups_[i].pool.HighestFree();
    if (granule < 0) continue;
    RETURN_IF_ERROR(ReleaseGranule(static_cast<int32_t>(i), granule));
    return true;
  }
  // 2. One that moving its blocks into free places of others empties.
  for (size_t i = 0; i < groups_.size(); ++i) {
    const BlockPool& pool = groups_[i].pool;
    if (static_cast<int32_t>(i) == except) continue;
    if (pool.committed_granules() <= pool.needed_granules()) continue;
    const int32_t granule = pool.HighestCommitted();
    RETURN_IF_ERROR(EmptyHighest(static_cast<int32_t>(i)));
    RETURN_IF_ERROR(ReleaseGranule(static_cast<int32_t>(i), granule));
    return true;
  }
  return false;
}

absl::Status KvCache::EmptyHighest(int32_t group) {
  Group& at = groups_[group];
  const int32_t granule = at.pool.HighestCommitted();
  for (const int32_t from : at.pool.UsedIn(granule)) {
    // The lowest free block. All other granules lie below this one, and they have room.
    const int32_t to = at.pool.Allocate();
    SY_CHECK(to >= 0 && to / at.pool.blocks_per_granule() < granule);
    if (absl::Status moved = memory_.Move(group, from, to); !moved.ok()) {
      at.pool.Free(to);
      return moved;
    }
    const Owner owner = at.owner[from];
    at.owner[from] = Owner();
    at.pool.Free(from);
    SetEntry(group, owner.slot, owner.index, to);
  }
  return absl::OkStatus();
}

absl::Status KvCache::MakeRoomFor(int32_t group) {
  const uint64_t granule_bytes = layout_.groups[group].granule_bytes;
  while (committed_bytes_ + granule_bytes > limit_) {
    absl::StatusOr<bool> released = ReleaseOne(group);
    RETURN_IF_ERROR(released.status());
    if (!*released) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the KV lease of ", limit_, " bytes is in use"));
    }
  }
  return absl::OkStatus();
}

// ---- Blocks

absl::Status KvCache::Obtain(int32_t group, int32_t* block) {
  BlockPool& pool = groups_[group].pool;
  *block = pool.Allocate();
  if (*block >= 0) return absl::OkStatus();
  if (pool.LowestUncommitted() < 0) {
    return absl::ResourceExhaustedError("the KV region is in use");
  }
  RETURN_IF_ERROR(MakeRoomFor(group));
  RETURN_IF_ERROR(CommitGranule(group));
  *block = pool.Allocate();
  SY_CHECK(*block >= 0);
  return absl::OkStatus();
}

void KvCache::SetEntry(int32_t group, int32_t slot, int32_t index, int32_t block) {
  Group& at = groups_[group];
  at.table[static_cast<size_t>(slot) * layout_.groups[group].table_stride + index] = block;
  at.owner[block] = {slot, index};
  BlockSpan& changed = at.changed[slot];
  if (changed.count() == 0) {
    changed = {index, index + 1};
  } else {
    changed = {std::min(changed.begin, index), std::max(changed.end, index + 1)};
  }
}

void KvCache::FreeEntry(int32_t group, int32_t slot, int32_t index) {
  const int32_t block = Table(group, slot)[index];
  groups_[group].owner[block] = Owner();
  groups_[group].pool.Free(block);
}

void KvCache::Trim(int32_t slot, int32_t first) {
  for (size_t i = 0; i < groups_.size(); ++i) {
    BlockSpan& span = groups_[i].span[slot];
    const int32_t begin = BlocksForRows(layout_.groups[i], first, first + 1).begin;
    for (; span.begin < std::min(begin, span.end); ++span.begin) {
      FreeEntry(static_cast<int32_t>(i), slot, span.begin);
    }
  }
}

absl::Status KvCache::Extend(int32_t slot, int32_t first, int32_t end) {
  Trim(slot, first);
  BlockSpans spans;
  for (const KvGroup& group : layout_.groups) spans.push_back(BlocksForRows(group, first, end));
  return ExtendTo(slot, spans);
}

absl::Status KvCache::Reserve(int32_t slot, const BlockSpans& spans) {
  for (size_t i = 0; i < groups_.size(); ++i) {
    SY_CHECK(groups_[i].span[slot].count() == 0);
    groups_[i].span[slot] = {spans[i].begin, spans[i].begin};
  }
  absl::Status status = ExtendTo(slot, spans);
  if (!status.ok()) Free(slot);
  return status;
}

absl::Status KvCache::ExtendTo(int32_t slot, const BlockSpans& spans) {
  const BlockSpans before = Spans(slot);
  absl::Status status;
  for (size_t i = 0; i < groups_.size() && status.ok(); ++i) {
    const auto group = static_cast<int32_t>(i);
    BlockSpan& span = groups_[i].span[slot];
    // A slot that holds nothing starts where it is needed.
    if (span.count() == 0) span = {spans[i].begin, spans[i].begin};
    SY_CHECK(span.begin <= spans[i].begin);
    while (span.end < spans[i].end) {
      int32_t block;
      status = Obtain(group, &block);
      if (!status.ok()) break;
      SetEntry(group, slot, span.end, block);
      ++span.end;
    }
  }
  if (status.ok()) return status;
  for (size_t i = 0; i < groups_.size(); ++i) {
    BlockSpan& span = groups_[i].span[slot];
    while (span.count() > 0 && span.end > before[i].end) {
      FreeEntry(static_cast<int32_t>(i), slot, --span.end);
    }
  }
  return status;
}

void KvCache::Free(int32_t slot) {
  for (size_t i = 0; i < groups_.size(); ++i) {
    BlockSpan& span = groups_[i].span[slot];
    for (; span.begin < span.end; ++span.begin)
      FreeEntry(static_cast<int32_t>(i), slot, span.begin);
    span = BlockSpan();
    groups_[i].changed[slot] = BlockSpan();
  }
}

// ---- What others see

KvRoom KvCache::Room() const {
  KvRoom room;
  room.limit = limit_;
  for (const Group& group : groups_) {
    const KvGroup& shape = layout_.groups[room.groups.size()];
    room.groups.push_back({group.pool.used_blocks(), shape.granules * shape.blocks_per_granule,
                           shape.blocks_per_granule, shape.granule_bytes});
  }
  return room;
}

BlockCounts KvCache::Held(int32_t slot) const {
  BlockCounts counts;
  for (const Group& group : groups_) counts.push_back(group.span[slot].count());
  return counts;
}

BlockSpans KvCache::Spans(int32_t slot) const {
  BlockSpans spans;
  for (const Group& group : groups_) spans.push_back(group.span[slot]);
  return spans;
}

void KvCache::TakeChanges(const std::function<void(int32_t, int32_t, BlockSpan)>& visit) {
  for (size_t i = 0; i < groups_.size(); ++i) {
    for (int32_t slot = 0; slot < slots_; ++slot) {
      BlockSpan& changed = groups_[i].changed[slot];
      if (changed.count() > 0) visit(static_cast<int32_t>(i), slot, changed);
      changed = BlockSpan();
    }
  }
}

void KvCache::CheckInvariants() const {
  uint64_t committed = 0;
  for (size_t i = 0; i < groups_.size(); ++i) {
    const Group& group = groups_[i];
    int32_t held = 0;
    for (int32_t slot = 0; slot < slots_; ++slot) {
      const BlockSpan span = group.span[slot];
      SY_CHECK(span.begin <= span.end && span.end <= layout_.groups[i].table_stride);
      held += span.count();
      for (int32_t index = span.begin; index < span.end; ++index) {
        const int32_t block = Table(static_cast<int32_t>(i), slot)[index];
        SY_CHECK(group.pool.used(block));
        SY_CHECK(group.owner[block].slot == slot && group.owner[block].index == index);
      }
    }
    // Every used block has one owner, so equal sums mean that no block is held twice or by nobody.
    SY_CHECK(held == group.pool.used_blocks());
    SY_CHECK(group.pool.free_blocks() >= 0);
    committed += group.pool.committed_granules() * layout_.groups[i].granule_bytes;
  }
  SY_CHECK(committed == committed_bytes_);
}

}  // namespace switchyard::worker
