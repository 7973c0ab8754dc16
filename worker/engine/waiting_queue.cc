#include "worker/engine/waiting_queue.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"

namespace switchyard::worker {

namespace {

bool Ready(const std::shared_ptr<Sequence>& sequence) { return !sequence->suspended; }

}  // namespace

void WaitingQueue::Add(std::shared_ptr<Sequence> sequence) {
  if (sequence->request.patient_until > 0) {
    ageing_[{sequence->request.patient_until, sequence->arrival}] = sequence;
  }
  ranked_.insert(std::move(sequence));
}

void WaitingQueue::Remove(const std::shared_ptr<Sequence>& sequence) {
  ageing_.erase({sequence->request.patient_until, sequence->arrival});
  ranked_.erase(sequence);
  aged_.erase(sequence);
}

void WaitingQueue::Admit(const std::shared_ptr<Sequence>& sequence) {
  const auto oldest = std::find_if(aged_.begin(), aged_.end(), Ready);
  aged_next_ = oldest == aged_.end() || *oldest != sequence;
  Remove(sequence);
}

void WaitingQueue::Age(Nanos now) {
  while (!ageing_.empty() && ageing_.begin()->first.first <= now) {
    aged_.insert(std::move(ageing_.begin()->second));
    ageing_.erase(ageing_.begin());
  }
}

// As if each were admitted before the next is chosen.
std::vector<std::shared_ptr<Sequence>> WaitingQueue::Next(int32_t most) const {
  std::vector<std::shared_ptr<Sequence>> next;
  absl::flat_hash_set<const Sequence*> taken;
  const auto free = [&](const std::shared_ptr<Sequence>& sequence) {
    return Ready(sequence) && !taken.contains(sequence.get());
  };
  auto oldest = aged_.begin();
  auto highest = ranked_.begin();
  bool aged_next = aged_next_;
  while (static_cast<int32_t>(next.size()) < most) {
    oldest = std::find_if(oldest, aged_.end(), free);
    highest = std::find_if(highest, ranked_.end(), free);
    if (highest == ranked_.end()) break;  // which holds the aged ones, too
    next.push_back(aged_next && oldest != aged_.end() ? *oldest : *highest);
    taken.insert(next.back().get());
    aged_next = oldest == aged_.end() || *oldest != next.back();
  }
  return next;
}

}  // namespace switchyard::worker
