#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "worker/engine/sequence.h"
#include "worker/engine/waiting_queue.h"

namespace switchyard::worker {

// All sequences, by id and by state, and the slots that the running ones sit in.
class SequenceTable {
 public:
  explicit SequenceTable(int32_t slots);

  // Null if the id is taken.
  Sequence* Add(SequenceRequest request, Nanos now);
  Sequence* Find(RequestId id) const;  // null: none, or ended

  const std::vector<std::shared_ptr<Sequence>>& running() const { return running_; }
  const std::deque<std::shared_ptr<Sequence>>& paused() const {
    return paused_;
  }  // first in first out
  WaitingQueue& waiting() { return waiting_; }
  const WaitingQueue& waiting() const { return waiting_; }
  int32_t free_slots() const { return static_cast<int32_t>(free_slots_.size()); }

  void Start(Sequence& sequence);    // waiting or paused -> running, in the lowest free slot
  void Pause(Sequence& sequence);    // running -> paused, last in the queue
  void PutBack(Sequence& sequence);  // running -> paused, first in the queue: it could not resume
  void End(Sequence& sequence);      // any -> ended: it can be found no more

  // Ids whose deadline is not after `now`; the earliest deadline, 0 if there is none.
  std::vector<RequestId> Expired(Nanos now) const;
  Nanos NextDeadline() const;

 private:
  std::shared_ptr<Sequence> Take(Sequence& sequence);  // out of its state's list

  absl::flat_hash_map<RequestId, std::shared_ptr<Sequence>> by_id_;
  WaitingQueue waiting_;
  std::vector<std::shared_ptr<Sequence>> running_;
  std::deque<std::shared_ptr<Sequence>> paused_;
  std::set<int32_t> free_slots_;
  std::set<std::pair<Nanos, RequestId>> deadlines_;
  uint64_t arrivals_ = 0;
};

}  // namespace switchyard::worker
