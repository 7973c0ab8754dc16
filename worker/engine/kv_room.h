#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/inlined_vector.h"

namespace switchyard::worker {

// A number of blocks in each KV group.
using BlockCounts = absl::InlinedVector<int32_t, 2>;

// Whether blocks fit into the lease, as arithmetic. Exact: granules can pass from one group to
// another and live blocks can be moved together, so only the totals count. A value; copy it to ask
// "what if".
struct KvRoom {
  struct Group {
    int32_t used = 0;
    int32_t most = 0;  // blocks of its region
    int32_t blocks_per_granule = 1;
    uint64_t granule_bytes = 0;
  };

  std::vector<Group> groups;
  uint64_t limit = 0;  // bytes of granules

  uint64_t Bytes() const {
    uint64_t bytes = 0;
    for (const Group& g : groups) {
      bytes += static_cast<uint64_t>((g.used + g.blocks_per_granule - 1) / g.blocks_per_granule) *
               g.granule_bytes;
    }
    return bytes;
  }
  bool Fits() const {
    for (const Group& g : groups) {
      if (g.used > g.most) return false;
    }
    return Bytes() <= limit;
  }
  void Add(const BlockCounts& counts) {
    for (size_t i = 0; i < groups.size(); ++i) groups[i].used += counts[i];
  }
  void Remove(const BlockCounts& counts) {
    for (size_t i = 0; i < groups.size(); ++i) groups[i].used -= counts[i];
  }
};

}  // namespace switchyard::worker
