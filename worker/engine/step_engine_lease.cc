// The engine under a changing lease: who is paused for it, and how sequences leave the device and
// come back.

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "worker/engine/step_engine.h"

namespace switchyard::worker {

// True if it changed something.
bool StepEngine::TendLease() {
  PauseForLease();
  const auto anyone_left = [this] {
    return !sequences_.running().empty() || (lease_->must_finish() && !sequences_.paused().empty());
  };
  const bool shrinks = lease_->WouldShrink(anyone_left());
  if (shrinks) {
    // No step may be touching what goes.
    ReadAll();
    if (absl::Status status = device_.Synchronize(device_.compute_stream()); !status.ok()) {
      LogError("the device failed: ", status.ToString());
    }
  }
  lease_->Work(anyone_left());
  return shrinks;
}

void StepEngine::PauseForLease() {
  if (sequences_.running().empty()) return;
  const auto suspended = [](const auto& each) { return each->suspended && !each->complete(); };
  const bool all_suspended =
      std::all_of(sequences_.running().begin(), sequences_.running().end(), suspended);
  if (lease_->must_pause_all(!all_suspended)) {
    ReadAll();
    // Oldest first, so that they come back in that order.
    auto leaving = sequences_.running();
    std::sort(leaving.begin(), leaving.end(),
              [this](const auto& a, const auto& b) { return RanksBefore(ItemOf(*a), ItemOf(*b)); });
    Pause(leaving);
    Report();
  } else if (lease_->must_pause_some()) {
    const uint64_t limit = lease_->target().kv_bytes;
    Picture picture = TakePicture();
    if (ChooseToPause(picture.running_items, cache_->Room(), limit).empty()) return;
    ReadAll();
    picture = TakePicture();
    std::vector<std::shared_ptr<Sequence>> leaving;
    for (const int32_t index : ChooseToPause(picture.running_items, cache_->Room(), limit)) {
      leaving.push_back(picture.running[index]);
    }
    Pause(leaving);
  }
}

// Every step that carries their rows has been read. While the KV of one is copied, the next one's
// host memory is made ready; all copies are waited for at once.
void StepEngine::Pause(const std::vector<std::shared_ptr<Sequence>>& leaving) {
  if (leaving.empty()) return;
  SY_CHECK(on_their_way_.empty());
  bool copying = false;
  for (const auto& each : leaving) {
    SY_CHECK(each->drawing == 0);
    each->paused_kv = SaveKv(*each);
    if (each->paused_kv == nullptr) continue;
    copying = true;
    host_kv_bytes_ += each->paused_kv->bytes;
  }
  if (copying) AwaitSaved(leaving);
  for (const auto& each : leaving) {
    if (each->paused_kv == nullptr) each->computed = 0;
    cache_->Free(each->slot);
    sequences_.Pause(*each);
    events_.Of(each->request.id).paused = true;
  }
}

// Begins to copy the sequence's KV to the host. Null if the host has no room for it: then it is
// computed again from its tokens, which is dearer, but loses nobody's request.
std::unique_ptr<PausedKv> StepEngine::SaveKv(const Sequence& sequence) {
  auto kv = std::make_unique<PausedKv>();
  kv->spans = cache_->Spans(sequence.slot);
  kv->bytes = runner_->kv_store().PackedBytes(kv->spans);
  if (kv->bytes == 0 || host_kv_bytes_ + kv->bytes > lease_->host_kv_limit()) return nullptr;
  const auto save = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(kv->memory, HostBuffer::Create(device_, kv->bytes));
    return runner_->kv_store().Save(*cache_, sequence.slot, kv->memory->data());
  };
  if (absl::Status status = save(); !status.ok()) {
    LogWarning("a paused sequence will be computed again: ", status.ToString());
    // Some of it may be on its way to memory that goes now.
    device_.Synchronize(device_.compute_stream()).IgnoreError();
    return nullptr;
  }
  return kv;
}

void StepEngine::AwaitSaved(const std::vector<std::shared_ptr<Sequence>>& leaving) {
  const absl::Status saved = device_.Synchronize(device_.compute_stream());
  if (saved.ok()) return;
  LogWarning("paused sequences will be computed again: ", saved.ToString());
  for (const auto& each : leaving) {
    if (each->paused_kv == nullptr) continue;
    host_kv_bytes_ -= each->paused_kv->bytes;
    each->paused_kv.reset();
  }
}

// Waits for no copy: the next step comes behind it, in the same stream. False if it did not come
// back: where the pool has no memory for it, it is still paused, and the pool has no more than it
// has; for anything else it ends, as in a step that fails.
bool StepEngine::Resume(Sequence& sequence) {
  std::unique_ptr<PausedKv> kv = std::move(sequence.paused_kv);
  sequences_.Start(sequence);
  absl::Status reserved;
  const auto restore = [&]() -> absl::Status {
    RETURN_IF_ERROR(runner_->UploadTokens(sequence));
    if (kv == nullptr) return absl::OkStatus();
    reserved = cache_->Reserve(sequence.slot, kv->spans);
    RETURN_IF_ERROR(reserved);
    return runner_->kv_store().Load(*cache_, sequence.slot, kv->memory->data());
  };
  if (absl::Status status = restore(); !status.ok()) {
    device_.Synchronize(device_.compute_stream())
        .IgnoreError();  // it may go before it is tried again
    cache_->Free(sequence.slot);
    sequences_.PutBack(sequence);
    sequence.paused_kv = std::move(kv);
    if (absl::IsResourceExhausted(reserved)) {
      lease_->KvCommitFailed(reserved);
    } else {
      LogError("a paused sequence could not come back: ", status.ToString());
      End(sequence, SequenceEnd::kError, std::string(status.message()));
    }
    return false;
  }
  if (kv != nullptr) restored_.push_back(std::move(kv));
  events_.Of(sequence.request.id).resumed = true;
  return true;
}

// The stream has passed what reads it.
void StepEngine::DropRestored(std::vector<std::unique_ptr<PausedKv>>& restored) {
  for (const auto& each : restored) host_kv_bytes_ -= each->bytes;
  restored.clear();
}

void StepEngine::Report() { lease_->Report(Counts(), clock_.Now(), sink_); }

}  // namespace switchyard::worker
