#include "worker/engine/block_pool.h"

#include "common/check.h"

namespace switchyard::worker {

BlockPool::BlockPool(int32_t granules, int32_t blocks_per_granule)
    : blocks_per_granule_(blocks_per_granule),
      granules_(granules),
      used_flags_(static_cast<std::size_t>(granules) * blocks_per_granule, false) {
  for (int32_t i = 0; i < granules; ++i) uncommitted_.insert(uncommitted_.end(), i);
}

int32_t BlockPool::LowestUncommitted() const {
  return uncommitted_.empty() ? -1 : *uncommitted_.begin();
}
int32_t BlockPool::HighestCommitted() const {
  return committed_.empty() ? -1 : *committed_.rbegin();
}
int32_t BlockPool::HighestFree() const { return empty_.empty() ? -1 : *empty_.rbegin(); }

void BlockPool::Add(int32_t granule) {
  SY_CHECK(!granules_[granule].committed);
  granules_[granule].committed = true;
  uncommitted_.erase(granule);
  committed_.insert(granule);
  open_.insert(granule);
  empty_.insert(granule);
}

void BlockPool::Remove(int32_t granule) {
  SY_CHECK(granules_[granule].committed && granules_[granule].used == 0);
  granules_[granule].committed = false;
  committed_.erase(granule);
  open_.erase(granule);
  empty_.erase(granule);
  uncommitted_.insert(granule);
}

int32_t BlockPool::Allocate() {
  if (open_.empty()) return -1;
  const int32_t granule = *open_.begin();
  int32_t block = granule * blocks_per_granule_;
  while (used_flags_[block]) ++block;
  used_flags_[block] = true;
  ++used_;
  Granule& at = granules_[granule];
  if (at.used == 0) empty_.erase(granule);
  if (++at.used == blocks_per_granule_) open_.erase(granule);
  return block;
}

void BlockPool::Free(int32_t block) {
  SY_CHECK(used_flags_[block]);
  used_flags_[block] = false;
  --used_;
  const int32_t granule = block / blocks_per_granule_;
  Granule& at = granules_[granule];
  if (at.used == blocks_per_granule_) open_.insert(granule);
  if (--at.used == 0) empty_.insert(granule);
}

std::vector<int32_t> BlockPool::UsedIn(int32_t granule) const {
  std::vector<int32_t> blocks;
  const int32_t begin = granule * blocks_per_granule_;
  for (int32_t block = begin; block < begin + blocks_per_granule_; ++block) {
    if (used_flags_[block]) blocks.push_back(block);
  }
  return blocks;
}

}  // namespace switchyard::worker
