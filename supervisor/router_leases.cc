// The lease protocol with one worker: every SetLease is a new epoch, and the lease is in motion
// until the worker says that it has settled.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/human.h"
#include "common/log.h"
#include "supervisor/backoff.h"
#include "supervisor/probe.h"
#include "supervisor/router_impl.h"
#include "supervisor/signs_of_life.h"

namespace switchyard::supervisor {

namespace {

constexpr Nanos kLeaseStuck = 60 * kSecond;  // a motion without progress

// What a worker said.
std::string Reason(const std::string& error) { return error.empty() ? "no reason given" : error; }

// Paused sequences would end with their worker.
std::string CannotPause(const ModelRecord& model) {
  return absl::StrCat(model.name(), " cannot pause, since its worker would have to end for the ",
                      HumanBytes(model.needs.fixed), " that it takes itself");
}

}  // namespace

LeaseEntry Router::Impl::LeaseOf(const ModelRecord& model) const {
  return DeviceOf(model).ledger.Get(model.name());
}

// All chunks and the smallest pool are there, and shall stay.
bool Router::Impl::Resident(const ModelRecord& model) const {
  const LeaseEntry lease = LeaseOf(model);
  return Ready(model) && model.needs.Whole(lease.held) && model.needs.Whole(lease.granted);
}

void Router::Impl::SetLease(ModelRecord& model, const Bytes& target, Motion motion, bool pause,
                            uint64_t host_kv) {
  LeaseSlot& lease = model.lease;
  if (lease.motion == Motion::kRest || Opens(model)) {
    lease.before = LeaseOf(model).granted;
    lease.since = Now();
    lease.tokens_before = model.tokens;
  }
  const bool copying = lease.motion == Motion::kGrow && lease.brings_weights;
  lease.brings_weights =
      motion == Motion::kGrow && (copying || target.weights > LeaseOf(model).held.weights);
  if (motion == Motion::kGrow) {
    lease.copies_from = model.master.id;
    lease.failed_master.reset();
  }
  lease.motion = motion;
  lease.pausing = pause;
  lease.pause_wanted = false;
  lease.epoch = DeviceOf(model).ledger.Grant(model.name(), target);
  v1::ToWorker message;
  v1::SetLease& set = *message.mutable_set_lease();
  set.set_epoch(lease.epoch);
  set.mutable_lease()->set_fixed_bytes(target.fixed);
  set.mutable_lease()->set_weight_bytes(target.weights);
  set.mutable_lease()->set_kv_bytes(target.kv);
  set.set_in_flight(pause               ? v1::SetLease::PAUSE
                    : lease.ends_worker ? v1::SetLease::FINISH
                                        : v1::SetLease::DRAIN);
  set.set_host_kv_bytes(host_kv);
  Send(model, std::move(message));
  WatchLease(model);
  dirty_ = true;
}

// Asks a victim for bytes. Sequences in flight may go on for `drain`, then are paused; host memory
// is kept for them from now on, if there is any.
void Router::Impl::ShrinkTo(ModelRecord& model, const Bytes& target, bool end_worker, Nanos drain) {
  if (!model.needs.Whole(target) && !end_worker && Running(model) > 0) ReserveForPause(model);
  model.lease.ends_worker = end_worker;
  SetLease(model, target, Motion::kShrink);
  model.lease.drain_until = Now() + drain;
  ArmDrain(model, drain);
}

void Router::Impl::ArmDrain(ModelRecord& model, Nanos delay) {
  const std::string name = model.name();
  Arm(model.lease.drain, delay, [this, name] { TryPause(*Find(name)); });
}

// Sequences of clients that the worker runs. Of one that is still in its prompt it says nothing but
// that it is one more; it may have said so before it had heard that somebody has left.
size_t Router::Impl::Running(const ModelRecord& model) const {
  const size_t may_run = model.running + model.waiting.size() - model.paused;
  return std::max<size_t>(model.running, std::min<size_t>(model.worker.running, may_run));
}

// Not settling is being stuck, unless sequences are draining and get on, or a growth follows a
// master that is being filled, which has a watch of its own. Weights of a master come all the time,
// or hang; what else a worker does for its lease it does not tell of: a device is opened with the
// fixed bytes, a pool is made, sequences move out. It tells of anything between two steps only, so
// a step that may still take its time is an excuse, and so is the one after it. `excused`: what the
// worker had finished of them when the first excuse was made.
void Router::Impl::WatchLease(ModelRecord& model, std::optional<uint64_t> excused) {
  const LeaseEntry entry = LeaseOf(model);
  const bool copies = model.lease.motion == Motion::kGrow && !model.host.streamed &&
                      entry.held.fixed >= model.needs.fixed &&
                      entry.granted.weights > entry.held.weights;
  const Nanos longest =
      copies ? LongestStandstill(model.failures.stuck_growths, kLeaseStuck) : kLeaseStuck;
  const std::string name = model.name();
  const uint64_t steps = model.worker.heartbeat.steps();
  const Nanos proved_at = model.probe.proved_at;
  ArmTwice(model.lease.watch, longest, [=, this] {
    ModelRecord& late = *Find(name);
    const bool gets_on = late.probe.proved_at > proved_at || Suspends(late) ||
                         !StandsStill(steps, late.worker.heartbeat);
    const bool follows =
        late.lease.motion == Motion::kGrow && late.master.phase == MasterSlot::Phase::kFilling;
    if ((Drains(late) && gets_on) || follows) return WatchLease(late);
    const v1::Heartbeat& beat = late.worker.heartbeat;
    const uint64_t first = excused.value_or(beat.steps());
    if (InAStep(beat) && beat.steps() <= first + 1) return WatchLease(late, first);
    if (copies) ++late.failures.stuck_growths;
    KillUnhealthy(late,
                  absl::StrCat("hung: did not follow its lease for ", longest / kSecond, " s"));
  });
}

// Keeps host memory for the KV of what runs, beside what is paused already. Masters that nobody
// needs make room, in a moment.
Router::Impl::HostRoom Router::Impl::ReserveForPause(ModelRecord& model) {
  const size_t running = std::max<size_t>({model.running, model.worker.running, 1});
  // No sequence can have more than the smallest pool, which holds a whole context.
  const uint64_t most =
      std::min<uint64_t>(LeaseOf(model).charge.kv, running * model.needs.kv_smallest);
  const uint64_t wanted = model.worker.host_kv + most;
  const uint64_t have = state_.host.paused(model.name());
  model.lease.reserve_wanted = wanted;
  if (have >= wanted) {
    model.lease.reserved = true;
    return HostRoom::kThere;
  }
  // Any master must still fit beside all that is paused, or nothing could come back to resume.
  uint64_t largest = 0;
  for (const auto& [name, other] : state_.models) {
    if (other->entry.problem.ok()) largest = std::max(largest, other->host.bytes);
  }
  if (state_.host.paused() - have + wanted + largest > state_.host.budget()) return HostRoom::kNone;
  const uint64_t missing = wanted - have;
  if (state_.host.free() < missing && !MakeHostRoom(model, missing)) {
    return state_.host.free() + HostRoomComing() < missing ? HostRoom::kNone : HostRoom::kComing;
  }
  model.lease.reserved = state_.host.SetPaused(model.name(), wanted);
  return model.lease.reserved ? HostRoom::kThere : HostRoom::kNone;
}

// The drain is over. What cannot be paused goes on, after the drain timeout for good, and nobody
// waits for it any longer: a drain without an end would hold up the whole device.
void Router::Impl::TryPause(ModelRecord& model) {
  LeaseSlot& lease = model.lease;
  if (lease.motion != Motion::kShrink || lease.pausing || !Ready(model)) return;
  // Slow to settle, or it has not said yet that something runs.
  if (!Drains(model)) return ArmDrain(model, kSecond);
  const bool whole = model.needs.Whole(LeaseOf(model).granted);
  // Paused sequences would die with their worker.
  const HostRoom room = lease.ends_worker ? HostRoom::kNone : ReserveForPause(model);
  if (room == HostRoom::kThere) {
    const uint64_t host_kv = state_.host.paused(model.name());
    return SetLease(model, LeaseOf(model).granted, Motion::kShrink, true, host_kv);
  }
  const Nanos left = lease.since + options_.drain_timeout - Now();
  const bool waited = std::exchange(lease.pause_wanted, room == HostRoom::kComing);
  if (lease.pause_wanted && lease.drain.armed()) return;
  // A worker that hangs may never let go of the master whose room this is.
  if (lease.pause_wanted && !waited) return ArmDrain(model, std::max(left, kSecond));
  // Who stays whole need not stop. Who stands still is stuck, and the lease's watch will say so;
  // and what has been cancelled is about to end.
  if (whole || !GetsOn(model) || Unfinished(model) == 0) return ArmDrain(model, kSecond);
  if (left > 0) return ArmDrain(model, left);
  if (const Nanos more = MoreTime(model); more > 0) return ArmDrain(model, more);
  lease.pause_wanted = false;
  GiveUpDrain(model);
}

// Whether the model's sequences are at work, so that waiting for them is all that is wrong.
bool Router::Impl::GetsOn(const ModelRecord& model) const {
  const v1::Heartbeat& beat = model.worker.heartbeat;
  return InAStep(beat) || Suspends(model) ||
         Now() - std::max(model.probe.proved_at, model.worker.stepped_at) <=
             LongestStep(beat.step_predicted_ns());
}

// The victim's sequences can neither finish in time nor be paused: it keeps what it has, and serves
// on. Whoever it was to give way to is told, or waits for another chance until its bound is over.
void Router::Impl::GiveUpDrain(ModelRecord& model) {
  LeaseSlot& lease = model.lease;
  lease.outlasting.merge(WhatDrains(model));
  lease.outlast_worker = lease.ends_worker;
  lease.outlast_why = lease.ends_worker
                          ? CannotPause(model)
                          : absl::StrCat(model.name(), " needs ", HumanBytes(lease.reserve_wanted),
                                         " of host memory to pause");
  LogInfo("the sequences of ", model.name(), " go on: they have not finished within ",
          options_.drain_timeout / kMillisecond, " ms, and ", lease.outlast_why);
  DeviceSlot& device = DeviceOf(model);
  if (!device.swap || device.swap->victims.count(model.name()) == 0) return GiveBack(model);
  const std::string wanted = device.swap->model;
  AbortSwap(device);
  FailSwitch(wanted, Outlasted(wanted));
}

// A victim that still drains gets its lease back.
void Router::Impl::GiveBack(ModelRecord& victim) {
  LeaseSlot& lease = victim.lease;
  if (!Ready(victim) || state_.ending || lease.motion != Motion::kShrink || lease.pausing) return;
  const Bytes before = Max(lease.before, LeaseOf(victim).granted);
  // It may have let go of chunks that we have not heard of: without a master they are gone. While
  // sequences run, it has not.
  const bool can_grow =
      (victim.master.phase == MasterSlot::Phase::kComplete && victim.master.attached) ||
      Drains(victim);
  if (!can_grow || !LeaseOf(victim).charge.Covers(before)) return;
  lease.ends_worker = false;
  lease.drain.Clear();
  SetLease(victim, before, Motion::kGrow);
}

// Of models on the device whose sequences have outlasted a drain, or are waited for now.
std::vector<std::string> Router::Impl::WhyNotPaused(size_t device) const {
  std::vector<std::string> reasons;
  for (const auto& [name, model] : state_.models) {
    if (model->device != device) continue;
    if (!model->lease.outlasting.empty()) {
      reasons.push_back(model->lease.outlast_why);
    } else if (model->lease.ends_worker && Drains(*model)) {
      reasons.push_back(CannotPause(*model));
    }
  }
  return reasons;
}

void Router::Impl::OnLease(ModelRecord& model, const v1::LeaseStatus& status) {
  if (!Ready(model)) return;
  const Bytes held{status.held().fixed_bytes(), status.held().weight_bytes(),
                   status.held().kv_bytes()};
  const LeaseEntry before = LeaseOf(model);
  DeviceOf(model).ledger.Acknowledge(model.name(), status.epoch(), held);
  model.worker.running = status.running();
  model.worker.paused = status.paused();
  model.worker.host_kv = status.host_kv_bytes();
  dirty_ = true;
  LeaseSlot& lease = model.lease;
  if (status.epoch() != lease.epoch) return;
  lease.host_short = status.host_short();
  const bool settled = status.settled() && lease.motion != Motion::kRest;
  // What was reserved for pausing and is not needed (any more) comes back. From then on the worker
  // holds no more than it has told; should one do so, that counts as far as it fits.
  if (settled) lease.reserved = false;
  if (!lease.reserved) {
    const uint64_t most = state_.host.paused(model.name()) + state_.host.free();
    state_.host.SetPaused(model.name(), std::min(status.host_kv_bytes(), most));
  }
  if (lease.motion == Motion::kRest) return NoteLostKv(model, status.error());
  if (held != before.held) WatchLease(model);
  if (!settled) return;
  const Motion motion = lease.motion;
  lease.motion = Motion::kRest;
  if (std::exchange(lease.brings_weights, false)) lease.weights_at = Now();
  lease.pausing = lease.pause_wanted = false;
  lease.drain.Clear();
  lease.watch.Clear();
  if (!LeaseOf(model).granted.Covers(held)) {
    KillWorker(model, absl::StrCat("does not give back memory: it holds ", HumanBytes(held.total()),
                                   " of a lease of ", HumanBytes(LeaseOf(model).granted.total()),
                                   status.error().empty() ? "" : ": ", status.error()));
  } else if (motion == Motion::kGrow) {
    OnGrown(model, status.error());
  } else {
    OnShrunk(model, status.error());
  }
}

// A pool takes memory when sequences need it. If there was none, the worker is content with what it
// has, though it was granted more: the rest is not charged to it any longer, and it grows again as
// any pool that is too small.
void Router::Impl::NoteLostKv(ModelRecord& model, const std::string& error) {
  const LeaseEntry lease = LeaseOf(model);
  if (lease.held.kv >= lease.granted.kv) return;
  const std::string why =
      absl::StrCat(model.name(), " has ", HumanBytes(lease.held.kv), " of KV, not the ",
                   HumanBytes(lease.granted.kv), " that it was granted on ",
                   DeviceOf(model).ledger.device().name, ": ", Reason(error));
  LogWarning(why);
  PoolFailed(model, why);
  Bytes left = lease.granted;
  left.kv = lease.held.kv;
  ShrinkTo(model, left, false, options_.drain_timeout);
}

// A larger pool is asked for again later and later: the next heartbeat will say that it is wanted.
void Router::Impl::PoolFailed(ModelRecord& model, const std::string& why) {
  LeaseSlot& lease = model.lease;
  model.failures.Note(why, Now());
  lease.pool_failures = FailuresAfter(lease.pool_failures, Now() - lease.pool_failed_at);
  lease.pool_failed_at = Now();
  const double jitter = BackoffJitter(model.name(), static_cast<uint64_t>(lease.pool_failures));
  lease.pool_not_before = Now() + BackoffDelay(lease.pool_failures, jitter);
}

void Router::Impl::OnShrunk(ModelRecord& model, const std::string& error) {
  if (!model.lease.ends_worker) return NoteLostKv(model, error);
  model.lease.ends_worker = false;
  if (model.worker.running > 0 || model.worker.paused > 0 || model.running > 0) return;
  TakeBackWaiting(model);
  EndWorker(model, kEndPatience);
}

// What a growth says of the rate of its bytes; nothing, if it had to follow the filling of a
// master.
void Router::Impl::NoteRate(ModelRecord& model) {
  const LeaseSlot& motion = model.lease;
  const uint64_t held = LeaseOf(model).held.weights;
  if (held <= motion.before.weights || motion.since < model.master.complete_since) return;
  RateMeter& rate = model.host.streamed ? model.master.fill : DeviceOf(model).copy;
  rate.Add(held - motion.before.weights, Now() - motion.since);
}

void Router::Impl::OnGrown(ModelRecord& model, const std::string& error) {
  DeviceSlot& device = DeviceOf(model);
  const LeaseEntry lease = LeaseOf(model);
  const bool swap = ComesIn(model);
  if (lease.held.Covers(lease.granted)) {
    NoteRate(model);
    if (lease.held.weights > model.lease.before.weights) model.failures.stuck_growths = 0;
    if (!swap) return;
    ++model.loads;
    FinishSwap(device);
    return;
  }
  // The grow failed: what it got goes back, what it had stays.
  const absl::Status why = absl::ResourceExhaustedError(absl::StrCat(
      model.name(), " got ", HumanBytes(lease.held.total()), " of ",
      HumanBytes(lease.granted.total()), " on ", device.ledger.device().name, ": ", Reason(error)));
  LogWarning(why.message());
  const DeviceLedger& ledger = device.ledger;
  const Shortage shortage{ledger.over() > 0, ledger.foreign() + ledger.free()};
  Bytes before = Min(model.lease.before, lease.held);
  before.fixed = lease.held.fixed;  // comes back with the process only
  ShrinkTo(model, before, false, options_.drain_timeout);
  if (!swap) return PoolFailed(model, std::string(why.message()));
  AbortSwap(device);
  GrowthFailed(model, shortage, why);
}

// Idle for long enough: only the fixed bytes stay.
void Router::Impl::Sleep(ModelRecord& model) {
  const LeaseEntry lease = LeaseOf(model);
  const DeviceSlot& device = DeviceOf(model);
  const bool busy = !model.requests.empty() || model.lease.motion != Motion::kRest ||
                    (device.swap && device.swap->model == model.name());
  if (busy) return ArmIdle(model);
  if (model.pinned || !Ready(model) || lease.granted.weights + lease.granted.kv == 0) return;
  LogInfo(model.name(), " goes to sleep");
  ShrinkTo(model, Bytes{lease.granted.fixed, 0, 0}, false, options_.drain_timeout);
}

}  // namespace switchyard::supervisor
