#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <vector>

namespace switchyard::worker {

// Which blocks of one KV group are in use, by granule. Pure bookkeeping: what is committed here has
// been committed by somebody else. Low granules are preferred, so that high ones fall free.
class BlockPool {
 public:
  BlockPool(int32_t granules, int32_t blocks_per_granule);

  int32_t granules() const { return static_cast<int32_t>(granules_.size()); }
  int32_t blocks_per_granule() const { return blocks_per_granule_; }
  int32_t committed_granules() const { return static_cast<int32_t>(committed_.size()); }
  int32_t used_blocks() const { return used_; }
  int32_t free_blocks() const { return committed_granules() * blocks_per_granule_ - used_; }
  bool used(int32_t block) const { return used_flags_[block]; }
  // Granules that the used blocks would fill if they were moved together.
  int32_t needed_granules() const {
    return (used_ + blocks_per_granule_ - 1) / blocks_per_granule_;
  }

  int32_t LowestUncommitted() const;  // -1: all are committed
  int32_t HighestCommitted() const;   // -1: none
  int32_t HighestFree() const;        // committed and without a used block; -1: none

  void Add(int32_t granule);     // committed; all its blocks are free
  void Remove(int32_t granule);  // has no used block

  int32_t Allocate();  // the lowest granule's lowest free block; -1: no block is free
  void Free(int32_t block);
  // The used blocks of a granule.
  std::vector<int32_t> UsedIn(int32_t granule) const;

 private:
  struct Granule {
    bool committed = false;
    int32_t used = 0;
  };

  const int32_t blocks_per_granule_;
  std::vector<Granule> granules_;
  std::vector<bool> used_flags_;  // by block
  std::set<int32_t> uncommitted_;
  std::set<int32_t> committed_;
  std::set<int32_t> open_;   // committed, with a free block
  std::set<int32_t> empty_;  // committed, without a used block
  int32_t used_ = 0;
};

}  // namespace switchyard::worker
