// Loads that fail, and the next try. One that had room and did not get there counts like a failure
// of the model's worker: in the same row, with the same back-off.

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "common/available_memory.h"
#include "supervisor/backoff.h"
#include "supervisor/retry_after.h"
#include "supervisor/router_impl.h"

namespace switchyard::supervisor {
namespace {

constexpr Nanos kSparedRecheck = 60 * kSecond;
constexpr Nanos kLongestTrial = 300 * kSecond;
// Of the back-off, where nothing but the host's memory is short: others may give it back at any
// time, and a try costs little. So whoever asks then need not be refused for it.
constexpr int kMostShortages = 6;
constexpr Nanos kForeignSeen = 2 * kSecond;  // whatever strangers have, a few samples show

}  // namespace

// Whether its back-off after a load that failed is not over.
bool Router::Impl::LoadsLater(const ModelRecord& model) const {
  return Now() < model.failures.load_not_before;
}

// It has one more try every ten minutes.
bool Router::Impl::FailsToLoad(const ModelRecord& model) const {
  return model.failures.loads >= kFailuresUntilSpared && Now() < FailsUntil(model);
}

// There was room, but it could not be loaded: it is tried again, later and later, and then given
// up. What lacks nothing but a master serves on, and what ends is not tried again.
void Router::Impl::LoadFailed(ModelRecord& model, const absl::Status& why) {
  FailureLog& failures = model.failures;
  failures.Note(std::string(why.message()), Now());
  model.lease.foreign_bound.reset();
  if (Resident(model)) return;
  if (model.leave != Leave::kNo || state_.draining) return FailDemand(model, why);
  // Nothing is wrong with the model if the host has no memory: it is never given up for that.
  if (IsHostShort(why)) {
    failures.shortages = std::min(failures.shortages + 1, kMostShortages);
    return TryLoadLater(model, failures.shortages, why);
  }
  ++failures.loads;
  failures.trial = false;
  if (failures.Count() < kFailuresUntilFailed && !failures.failed) {
    return TryLoadLater(model, failures.loads, why);
  }
  GiveUp(model);
  EndWorker(model, kEndPatience);  // the next one may do better, and its bytes are of use to others
}

// After its nth failure in a row. Who waits ends with that, unless the model is there.
void Router::Impl::TryLoadLater(ModelRecord& model, int nth, const absl::Status& why) {
  const Nanos delay = BackoffDelay(nth, BackoffJitter(model.name(), static_cast<uint64_t>(nth)));
  model.failures.load_not_before = Now() + delay;
  Arm(model.load_retry, delay, [] {});
  if (Resident(model)) return;
  FailDemand(model, WithRetryAfter(why, delay));
}

// The growth that follows the master fails with it.
void Router::Impl::MasterFailed(ModelRecord& model, uint64_t master_id, const absl::Status& why) {
  if (std::exchange(model.lease.failed_master, master_id) != master_id) {
    return LoadFailed(model, why);
  }
  model.failures.Note(std::string(why.message()), Now());  // it says more than the growth did
}

// What a swap was for. If strangers have taken the memory, it is not the model's fault; perhaps the
// next sample shows that.
void Router::Impl::GrowthFailed(ModelRecord& model, const Shortage& shortage,
                                const absl::Status& why) {
  const uint64_t master = model.lease.copies_from;
  if (std::exchange(model.lease.failed_master, master) == master) return;
  if (shortage.over) {
    model.failures.Note(std::string(why.message()), Now());
    return FailDemand(model, why);
  }
  if (model.lease.host_short) return LoadFailed(model, HostShort(std::string(why.message())));
  LoadFailed(model, why);
  model.lease.foreign_bound = shortage.foreign_bound;
}

// They had more than there was room for beside a growth that has just failed.
void Router::Impl::ForgiveForStrangers(DeviceSlot& device) {
  for (const auto& [name, model] : state_.models) {
    std::optional<uint64_t>& bound = model->lease.foreign_bound;
    FailureLog& failures = model->failures;
    if (&DeviceOf(*model) != &device || !bound || device.ledger.foreign() <= *bound) continue;
    bound.reset();
    if (failures.loads == 0 || Now() - failures.last_at > kForeignSeen) continue;
    --failures.loads;
    failures.load_not_before = 0;
    if (!failures.failed || failures.Count() >= kFailuresUntilFailed) continue;
    failures.failed = false;
    failures.not_before = Now();
    model->launch_wanted = true;
  }
}

// It is resident.
void Router::Impl::NoteLoaded(ModelRecord& model) {
  FailureLog& failures = model.failures;
  failures.stands = false;
  failures.ForgiveLoads();
  if (std::exchange(failures.trial, false)) failures.failed = false;
  model.load_retry.Clear();
  model.lease.foreign_bound.reset();
  model.lease.pool_failures = 0;
  model.lease.pool_not_before = 0;
  model.told_no_room = false;
  model.opened = false;
}

// A pinned model for whose sake nobody is evicted, since it fails: no event says when that is over.
void Router::Impl::AwaitSpared(const Demand& demand) {
  if (demand.kind != DemandKind::kBackground || !demand.failing) return;
  Alarm& retry = Find(demand.model)->load_retry;
  if (!retry.armed()) Arm(retry, kSparedRecheck, [] {});
}

// A failed model has a new worker. That says nothing of whether it can be loaded: its master is
// filled, if it has none, and then it comes in.
void Router::Impl::BeginTrial(ModelRecord& model) {
  model.failures.trial = true;
  model.failures.trial_since = Now();
  model.master.prefetch = model.master.phase == MasterSlot::Phase::kNone;
}

// Nobody gives anything for a trial. Where there is no room without that, it serves again as one
// that fails does: whoever asks when the ten minutes are over gives it its next try.
void Router::Impl::PumpTrial(ModelRecord& model) {
  FailureLog& failures = model.failures;
  const MasterSlot& master = model.master;
  if (!failures.trial || !Ready(model) || model.leave != Leave::kNo || state_.draining) return;
  const bool complete = master.phase == MasterSlot::Phase::kComplete;
  const bool reads = master.prefetch || master.phase == MasterSlot::Phase::kFilling ||
                     (complete && !master.attached);
  const bool comes = reads || (complete && !model.kept_out && !model.without_room);
  // Others' requests may put it off for as long as they come.
  if (comes && Now() - failures.trial_since < kLongestTrial) return;
  failures.trial = failures.failed = false;
  dirty_ = true;
}

}  // namespace switchyard::supervisor
