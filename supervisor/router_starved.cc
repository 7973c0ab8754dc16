// What we have no descriptors, processes or memory for just now: tried again as after a failure,
// but it says nothing of the model, and is none of its own.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "supervisor/backoff.h"
#include "supervisor/router_impl.h"

namespace switchyard::supervisor {
namespace {

constexpr int kMostDoublings = 4;  // others may leave room at any moment

}  // namespace

// EMFILE, ENFILE and ENOMEM; EAGAIN.
bool Router::Impl::IsStarved(const absl::Status& why) {
  return absl::IsResourceExhausted(why) || absl::IsUnavailable(why);
}

// After how many of these the next try waits, for its back-off. A model that has failed keeps its
// own reason.
int Router::Impl::NoteStarved(ModelRecord& model, const absl::Status& why) {
  FailureLog& failures = model.failures;
  ++failures.starved;
  if (!failures.failed) failures.Note(std::string(why.message()), Now());
  if (failures.starved == 1) LogWarning(why.message());
  dirty_ = true;
  return std::min(failures.starved, kMostDoublings);
}

// Requests wait for the next try, for as long as their bounds let them. What has none waits for one
// more.
void Router::Impl::LaunchStarved(ModelRecord& model, const absl::Status& launch) {
  FailureLog& failures = model.failures;
  const absl::Status why(launch.code(),
                         absl::StrCat("the worker of ", model.name(),
                                      " cannot be started for now: ", launch.message()));
  const int nth = NoteStarved(model, why);
  failures.not_before =
      Now() + BackoffDelay(nth, BackoffJitter(model.name(), static_cast<uint64_t>(nth)));
  model.launch_wanted = !failures.failed && model.leave == Leave::kNo && !state_.draining;
  if (failures.starved == 1) return;
  FailSwitch(model.name(), why);
  FinishPrefetches(model, why);
  EndCalls(model, why);
}

// As LoadFailed, but that it does not count.
void Router::Impl::MasterStarved(ModelRecord& model, const absl::Status& why) {
  const int nth = NoteStarved(model, why);
  if (model.leave != Leave::kNo || state_.draining) return FailDemand(model, why);
  TryLoadLater(model, nth, why);
}

}  // namespace switchyard::supervisor
