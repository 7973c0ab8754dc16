// The engine's commands and deadlines: what others ask for, between steps.

#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "worker/engine/step_engine.h"

namespace switchyard::worker {

void StepEngine::ApplyCommands() {
  // Before the commands are taken: whoever interrupts has pushed his command first, or stopped us.
  residency_->EndInterrupt();
  if (commands_.stopped()) residency_->Interrupt();
  for (Command& command : commands_.TakeAll()) {
    std::visit([this](auto& each) { Apply(std::move(each)); }, command);
  }
}

void StepEngine::Apply(SequenceRequest request) {
  const auto length = static_cast<int64_t>(request.prompt.size());
  const bool fits =
      length > 0 && request.max_tokens > 0 && length + request.max_tokens <= limits_.context_length;
  const RequestId id = request.id;
  Sequence* sequence = sequences_.Add(std::move(request), clock_.Now());
  if (sequence == nullptr) {
    LogError("request ", id, " is running already: the second one is ignored");
    return;
  }
  if (!fits) {
    End(*sequence, SequenceEnd::kError,
        absl::StrCat("a prompt of ", length, " tokens and ", sequence->request.max_tokens,
                     " more do not fit the context of ", limits_.context_length));
  }
}

void StepEngine::Apply(CancelCommand command) {
  Sequence* sequence = sequences_.Find(command.id);
  if (sequence != nullptr) End(*sequence, SequenceEnd::kCancelled);
}

void StepEngine::Apply(FinishCommand command) {
  Sequence* sequence = sequences_.Find(command.id);
  if (sequence != nullptr) End(*sequence, SequenceEnd::kStop);
}

void StepEngine::Apply(SuspendCommand command) {
  Sequence* sequence = sequences_.Find(command.id);
  if (sequence != nullptr) sequence->suspended = command.suspended;
}

void StepEngine::Apply(const LeaseTarget& target) { lease_->SetTarget(target); }

void StepEngine::ExpireDeadlines() {
  if (sequences_.NextDeadline() == 0) return;
  for (const RequestId id : sequences_.Expired(clock_.Now())) {
    End(*sequences_.Find(id), SequenceEnd::kDeadline);
  }
}

// Steps on their way may still write to its slot and blocks. Whoever gets those next writes to them
// in the same stream, so after these steps; and memory is unmapped only after they have been waited
// for.
void StepEngine::End(Sequence& sequence, SequenceEnd end, std::string error) {
  if (sequence.state == SequenceState::kRunning) cache_->Free(sequence.slot);
  if (sequence.paused_kv != nullptr) {
    host_kv_bytes_ -= sequence.paused_kv->bytes;
    sequence.paused_kv.reset();
  }
  SequenceEvent& event = events_.Of(sequence.request.id);
  event.end = end;
  event.error = std::move(error);
  event.times = sequence.times;
  sequences_.End(sequence);
}

}  // namespace switchyard::worker
