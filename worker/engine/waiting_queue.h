#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "worker/engine/sequence.h"

namespace switchyard::worker {

// Sequences that wait to be admitted. They are admitted by priority, then by arrival: by rank. That
// alone would let a stream of high priorities keep a low one waiting for ever. So one that has lost
// its patience (SequenceRequest::patient_until) is aged, and every second place goes to the oldest
// aged one, whatever its priority. Not every place: behind a long queue, all of which has aged, a
// priority would mean nothing. The other places go by rank, and the aged ones keep theirs: to age
// adds a claim and takes none away. So where nobody has a priority, all go by arrival.
//
// After one that was not the oldest aged one, the next place is the oldest aged one's; after the
// oldest aged one, the next goes by rank, whichever of the two had brought it in. So no two places
// in a row pass by the oldest aged one, nor the highest rank.
//
// (Linux's mq-deadline scheduler has the same two rules for disks: prio_aging_expire, and
// writes_starved for how many may go before.)
class WaitingQueue {
 public:
  void Add(std::shared_ptr<Sequence> sequence);
  void Remove(const std::shared_ptr<Sequence>& sequence);
  // The same, since it has been admitted: it has had its place.
  void Admit(const std::shared_ptr<Sequence>& sequence);
  // Those become aged whose patience ends at `now` or before.
  void Age(Nanos now);
  // The first `most` that are not suspended, in the order of admission.
  std::vector<std::shared_ptr<Sequence>> Next(int32_t most) const;
  size_t size() const { return ranked_.size(); }

 private:
  struct Earlier {
    bool operator()(const std::shared_ptr<Sequence>& a, const std::shared_ptr<Sequence>& b) const {
      return a->arrival < b->arrival;
    }
  };
  struct Higher {
    bool operator()(const std::shared_ptr<Sequence>& a, const std::shared_ptr<Sequence>& b) const {
      if (a->request.priority != b->request.priority) {
        return a->request.priority > b->request.priority;
      }
      return a->arrival < b->arrival;
    }
  };

  std::set<std::shared_ptr<Sequence>, Higher> ranked_;  // all
  std::set<std::shared_ptr<Sequence>, Earlier> aged_;
  // Those that have a patience and have not lost it, by its end, then arrival.
  std::map<std::pair<Nanos, uint64_t>, std::shared_ptr<Sequence>> ageing_;
  bool aged_next_ = true;  // the next place is the oldest aged one's, if there is one
};

}  // namespace switchyard::worker
