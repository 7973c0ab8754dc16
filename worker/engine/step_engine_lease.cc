// The engine under a changing lease: who is paused for it, and how sequences leave the device and
// come back.

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "worker/engine/step_engine.h"

namespace switchyard::worker {

// True if it changed something.
bool StepEngine::TendLease() {
  PauseForLease();
  const auto anyone_runs = [this] { return !sequences_.running().empty(); };
  const bool shrinks = lease_->WouldShrink(anyone_runs());
  if (shrinks) {
    // No step may be touching what goes.
    ReadAll();
    if (absl::Status status = device_.Synchronize(device_.compute_stream()); !status.ok()) {
      LogError("the device failed: ", status.ToString());
    }
  }
  lease_->Work(anyone_runs());
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
    for (const auto& each : leaving) Pause(*each);
    Report();
  } else if (lease_->must_pause_some()) {
    const uint64_t limit = lease_->target().kv_bytes;
    Picture picture = TakePicture();
    if (ChooseToPause(picture.running_items, cache_->Room(), limit).empty()) return;
    ReadAll();
    picture = TakePicture();
    for (const int32_t index : ChooseToPause(picture.running_items, cache_->Room(), limit)) {
      Pause(*picture.running[index]);
    }
  }
}

// Every step that carries its rows has been read.
void StepEngine::Pause(Sequence& sequence) {
  SY_CHECK(on_their_way_.empty() && sequence.drawing == 0);
  sequence.paused_kv = SaveKv(sequence);
  if (sequence.paused_kv != nullptr) {
    host_kv_bytes_ += sequence.paused_kv->bytes;
  } else {
    sequence.computed = 0;
  }
  cache_->Free(sequence.slot);
  sequences_.Pause(sequence);
  events_.Of(sequence.request.id).paused = true;
}

// Copies the sequence's KV to the host. Null if the host has no room for it: then it is computed
// again from its tokens, which is dearer, but loses nobody's request.
std::unique_ptr<PausedKv> StepEngine::SaveKv(const Sequence& sequence) {
  auto kv = std::make_unique<PausedKv>();
  kv->spans = cache_->Spans(sequence.slot);
  kv->bytes = runner_->kv_store().PackedBytes(kv->spans);
  if (kv->bytes == 0 || host_kv_bytes_ + kv->bytes > lease_->host_kv_limit()) return nullptr;
  const auto save = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(kv->memory, HostBuffer::Create(device_, kv->bytes));
    RETURN_IF_ERROR(runner_->kv_store().Save(*cache_, sequence.slot, kv->memory->data()));
    return device_.Synchronize(device_.compute_stream());
  };
  if (absl::Status status = save(); !status.ok()) {
    LogWarning("a paused sequence will be computed again: ", status.ToString());
    return nullptr;
  }
  return kv;
}

// Waits for no copy: the next step comes behind it, in the same stream. On an error it is still
// paused.
absl::Status StepEngine::Resume(Sequence& sequence) {
  std::unique_ptr<PausedKv> kv = std::move(sequence.paused_kv);
  sequences_.Start(sequence);
  const auto restore = [&]() -> absl::Status {
    RETURN_IF_ERROR(runner_->UploadTokens(sequence));
    if (kv == nullptr) return absl::OkStatus();
    RETURN_IF_ERROR(cache_->Reserve(sequence.slot, kv->spans));
    return runner_->kv_store().Load(*cache_, sequence.slot, kv->memory->data());
  };
  if (absl::Status status = restore(); !status.ok()) {
    device_.Synchronize(device_.compute_stream())
        .IgnoreError();  // it may go before it is tried again
    cache_->Free(sequence.slot);
    sequences_.PutBack(sequence);
    sequence.paused_kv = std::move(kv);
    return status;
  }
  if (kv != nullptr) restored_.push_back(std::move(kv));
  events_.Of(sequence.request.id).resumed = true;
  return absl::OkStatus();
}

// The stream has passed what reads it.
void StepEngine::DropRestored(std::vector<std::unique_ptr<PausedKv>>& restored) {
  for (const auto& each : restored) host_kv_bytes_ -= each->bytes;
  restored.clear();
}

void StepEngine::Report() { lease_->Report(Counts(), clock_.Now(), sink_); }

}  // namespace switchyard::worker
