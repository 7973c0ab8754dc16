#include "worker/engine/sequence_table.h"

#include <algorithm>

#include "common/check.h"

namespace switchyard::worker {
namespace {

// Removes one element of a list by identity and returns it.
template <typename List>
std::shared_ptr<Sequence> TakeFrom(List& list, const Sequence& sequence) {
  const auto at = std::find_if(list.begin(), list.end(),
                               [&](const auto& each) { return each.get() == &sequence; });
  SY_CHECK(at != list.end());
  std::shared_ptr<Sequence> taken = *at;
  list.erase(at);
  return taken;
}

}  // namespace

SequenceTable::SequenceTable(int32_t slots) {
  for (int32_t i = 0; i < slots; ++i) free_slots_.insert(i);
}

Sequence* SequenceTable::Add(SequenceRequest request, Nanos now) {
  auto sequence = std::make_shared<Sequence>();
  if (!by_id_.emplace(request.id, sequence).second) return nullptr;
  if (request.deadline != 0) deadlines_.insert({request.deadline, request.id});
  sequence->tokens = request.prompt;
  sequence->request = std::move(request);
  sequence->arrival = ++arrivals_;
  sequence->times.submitted = now;
  waiting_.Add(sequence);
  return sequence.get();
}

Sequence* SequenceTable::Find(RequestId id) const {
  const auto at = by_id_.find(id);
  return at == by_id_.end() ? nullptr : at->second.get();
}

std::shared_ptr<Sequence> SequenceTable::Take(Sequence& sequence) {
  switch (sequence.state) {
    case SequenceState::kWaiting: {
      std::shared_ptr<Sequence> taken = by_id_.at(sequence.request.id);
      waiting_.Remove(taken);
      return taken;
    }
    case SequenceState::kRunning:
      free_slots_.insert(sequence.slot);
      sequence.slot = -1;
      return TakeFrom(running_, sequence);
    case SequenceState::kPaused:
      return TakeFrom(paused_, sequence);
    case SequenceState::kEnded:
      break;
  }
  SY_CHECK(false);
  return nullptr;
}

void SequenceTable::Start(Sequence& sequence) {
  SY_CHECK(!free_slots_.empty() && sequence.state != SequenceState::kRunning);
  if (sequence.state == SequenceState::kWaiting) waiting_.Admit(by_id_.at(sequence.request.id));
  std::shared_ptr<Sequence> taken = Take(sequence);
  sequence.slot = *free_slots_.begin();
  free_slots_.erase(free_slots_.begin());
  sequence.state = SequenceState::kRunning;
  running_.push_back(std::move(taken));
}

void SequenceTable::Pause(Sequence& sequence) {
  SY_CHECK(sequence.state == SequenceState::kRunning && sequence.drawing == 0);
  paused_.push_back(Take(sequence));
  sequence.state = SequenceState::kPaused;
}

void SequenceTable::PutBack(Sequence& sequence) {
  SY_CHECK(sequence.state == SequenceState::kRunning);
  paused_.push_front(Take(sequence));
  sequence.state = SequenceState::kPaused;
}

void SequenceTable::End(Sequence& sequence) {
  deadlines_.erase({sequence.request.deadline, sequence.request.id});
  std::shared_ptr<Sequence> taken = Take(sequence);
  by_id_.erase(sequence.request.id);
  sequence.state = SequenceState::kEnded;
}

std::vector<RequestId> SequenceTable::Expired(Nanos now) const {
  std::vector<RequestId> ids;
  for (const auto& [deadline, id] : deadlines_) {
    if (deadline > now) break;
    ids.push_back(id);
  }
  return ids;
}

Nanos SequenceTable::NextDeadline() const {
  return deadlines_.empty() ? 0 : deadlines_.begin()->first;
}

}  // namespace switchyard::worker
