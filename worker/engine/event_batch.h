#pragma once

#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "worker/engine/engine.h"

namespace switchyard::worker {

// The events of one iteration, at most one a sequence, in the order in which they began.
class EventBatch {
 public:
  SequenceEvent& Of(RequestId id) {
    const auto [at, fresh] = index_.emplace(id, events_.size());
    if (fresh) events_.emplace_back().id = id;
    return events_[at->second];
  }
  bool empty() const { return events_.empty(); }
  std::vector<SequenceEvent> Take() {
    index_.clear();
    return std::exchange(events_, {});
  }

 private:
  std::vector<SequenceEvent> events_;
  absl::flat_hash_map<RequestId, size_t> index_;
};

}  // namespace switchyard::worker
