#include "worker/engine/waiting_queue.h"

#include <algorithm>

namespace switchyard::worker {

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
  aged_next_ = aged_.count(sequence) == 0;
  Remove(sequence);
}

void WaitingQueue::Age(Nanos now) {
  while (!ageing_.empty() && ageing_.begin()->first.first <= now) {
    std::shared_ptr<Sequence> sequence = std::move(ageing_.begin()->second);
    ageing_.erase(ageing_.begin());
    ranked_.erase(sequence);
    aged_.insert(std::move(sequence));
  }
}

std::vector<std::shared_ptr<Sequence>> WaitingQueue::Next(int32_t most) const {
  const auto ready = [](const std::shared_ptr<Sequence>& sequence) { return !sequence->suspended; };
  std::vector<std::shared_ptr<Sequence>> next;
  auto aged = std::find_if(aged_.begin(), aged_.end(), ready);
  auto ranked = std::find_if(ranked_.begin(), ranked_.end(), ready);
  bool aged_next = aged_next_;
  while (static_cast<int32_t>(next.size()) < most) {
    if (aged == aged_.end() && ranked == ranked_.end()) break;
    const bool takes_aged = ranked == ranked_.end() || (aged_next && aged != aged_.end());
    if (takes_aged) {
      next.push_back(*aged);
      aged = std::find_if(std::next(aged), aged_.end(), ready);
    } else {
      next.push_back(*ranked);
      ranked = std::find_if(std::next(ranked), ranked_.end(), ready);
    }
    aged_next = !takes_aged;
  }
  return next;
}

}  // namespace switchyard::worker
