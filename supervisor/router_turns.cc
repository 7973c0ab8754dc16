// What waits and for how long, as values for the scheduler; and who has waited too long.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "supervisor/backoff.h"
#include "supervisor/retry_after.h"
#include "supervisor/router_impl.h"
#include "supervisor/signs_of_life.h"

namespace switchyard::supervisor {
namespace {

double Seconds(Nanos time) {
  return static_cast<double>(time / (100 * kMillisecond)) / 10;  // for people
}

}  // namespace

Nanos Router::Impl::MaxWait(const ModelRecord& model) const {
  const v1::Model& entry = model.entry.model;
  if (!entry.has_max_wait()) return kMaxWait;
  return entry.max_wait().seconds() * kSecond + entry.max_wait().nanos();
}

// KV that a swap on the device has to move to host memory, if nothing finishes before.
uint64_t Router::Impl::KvInFlight(size_t device) const {
  uint64_t sum = 0;
  for (const auto& [name, model] : state_.models) {
    if (model->device == device && Running(*model) > 0) sum += KvUsed(*model);
  }
  return sum;
}

// Bytes of its pool that sequences are in; all of it, as long as the worker has not said.
uint64_t Router::Impl::KvUsed(const ModelRecord& model) const {
  const v1::Heartbeat& beat = model.worker.heartbeat;
  const uint64_t pool = LeaseOf(model).held.kv;
  if (beat.kv_blocks_total() == 0) return pool;
  const double share =
      static_cast<double>(beat.kv_blocks_used()) / static_cast<double>(beat.kv_blocks_total());
  return std::min(pool, static_cast<uint64_t>(static_cast<double>(pool) * share));
}

SchedulerDevice Router::Impl::DeviceView(size_t index) const {
  const DeviceLedger& ledger = state_.devices[index]->ledger;
  return {ledger.device().name,
          ledger.device().capacity_bytes,
          ledger.device().reserve_bytes,
          state_.devices[index]->foreign_kept,
          ledger.free(),
          ledger.over()};
}

SchedulerModel Router::Impl::ModelView(const ModelRecord& model) const {
  const LeaseEntry lease = LeaseOf(model);
  const bool has_master =
      model.master.phase == MasterSlot::Phase::kComplete && !model.host.streamed;
  SchedulerModel view;
  view.tenant.model = model.name();
  view.tenant.needs = model.needs;
  view.tenant.lease = lease.granted;
  view.tenant.last_use = model.last_use;
  view.tenant.cost = 1 / DeviceOf(model).copy.bytes_per_second() +
                     (has_master ? 0 : 1 / model.master.fill.bytes_per_second());
  view.tenant.kv_used = KvUsed(model);
  view.tenant.pinned = model.pinned;
  view.tenant.active = Running(model) > 0;
  view.tenant.paused = model.worker.paused > 0 || model.worker.host_kv > 0 || model.lease.pausing;
  const bool outlasts = !model.lease.outlasting.empty();
  view.tenant.worker_stays = outlasts;
  view.tenant.stays = outlasts && !model.lease.outlast_worker;
  view.tenant.unused = model.opened && lease.granted.OnlyFixed() && !view.tenant.paused;
  view.charge = lease.charge;
  view.starved = model.worker.starved && Resident(model) && Now() >= model.lease.pool_not_before;
  view.settled = model.lease.motion == Motion::kRest || Opens(model);
  view.ending = model.worker.phase == Phase::kEnding || model.leave != Leave::kNo;
  view.quarantined = model.worker.quarantined;
  view.asked = !model.unsent.empty() && model.leave == Leave::kNo && !Resident(model);
  if (model.needs.Whole(lease.granted)) {
    const auto highest = model.priorities.rbegin();
    view.work = {model.requests.size(), highest == model.priorities.rend() ? 0 : highest->first,
                 model.turn_until, model.switched};
  }
  return view;
}

std::vector<SchedulerModel> Router::Impl::ModelViews(size_t device) const {
  std::vector<SchedulerModel> views;
  for (const auto& [name, model] : state_.models) {
    if (model->device == device) views.push_back(ModelView(*model));
  }
  return views;
}

// Pinned or on trial, not there, and nothing says that it cannot come in now.
bool Router::Impl::WantsResidency(const ModelRecord& model) const {
  const bool wanted = (model.pinned && Refusal(model).ok()) ||
                      (model.failures.trial && model.master.phase == MasterSlot::Phase::kComplete);
  return wanted && !state_.draining && model.leave == Leave::kNo && !Resident(model) &&
         !model.without_room && !LoadsLater(model);
}

// Whether there is no room for it, and nobody wants it but what is paused: that waits for room, and
// stands in nobody's way.
bool Router::Impl::OnlyHopes(const ModelRecord& model) const {
  return model.without_room && model.paused > 0 && model.waiting.size() == model.paused &&
         FindSwitch(model.name()) == nullptr;
}

// Who wants the model to become resident: the strongest wish of a switch, requests, a pin. What its
// turn takes is Demands' to say.
std::optional<Demand> Router::Impl::DemandOf(const ModelRecord& model) const {
  if (!model.entry.problem.ok() || !model.misfit.ok() || model.leave != Leave::kNo ||
      Resident(model) || LoadsLater(model) || OnlyHopes(model)) {
    return std::nullopt;
  }
  Demand demand;
  demand.model = model.name();
  if (!model.waiting.empty()) {
    const auto& [minus_priority, since, id] = *model.waiting.begin();
    demand.priority = -minus_priority;
    demand.since = since;
    demand.requests = model.waiting.size();
    const uint64_t now = static_cast<uint64_t>(Now());
    const uint64_t waited = demand.requests * now - model.since_sum;
    demand.waited = static_cast<Nanos>(std::min<uint64_t>(waited, kNever));
    demand.due = model.clock.meter.FirstDue(model.ages, Now()).value_or(0);
    const Request& oldest = *state_.requests.at(model.ages.begin()->second);
    demand.asked = std::max(oldest.waiting_since, model.clock.anew_at);
  }
  if (const SwitchOp* op = FindSwitch(model.name())) {
    demand.kind = DemandKind::kSwitch;
    demand.since = static_cast<Nanos>(op->order);
    demand.asked = model.waiting.empty() ? op->since : std::min(op->since, demand.asked);
  } else if (model.waiting.empty()) {
    if (!WantsResidency(model)) return std::nullopt;
    demand.kind = DemandKind::kBackground;
  }
  demand.prepared = Prepared(model);
  demand.failing = Failing(model) || model.failures.trial;
  return demand;
}

// A row of failures, the last of them not long ago. That ends by itself also where the weights are
// damaged: who is never tried neither mends nor fails for good, which takes its master from it.
bool Router::Impl::Failing(const ModelRecord& model) const {
  return model.failures.Count() >= kFailuresUntilSpared && Now() < FailsUntil(model);
}

Nanos Router::Impl::FailsUntil(const ModelRecord& model) const {
  return model.failures.last_at + kHealthyAfter;
}

// Whether its requests cannot be served for the one reason that nobody gives way to them.
bool Router::Impl::KeptOut(const ModelRecord& model) const {
  return model.kept_out && Failing(model);
}

// What they are told. Who asks again gets damaged weights again, until somebody has mended them.
absl::Status Router::Impl::NobodyGivesWay(const ModelRecord& model) const {
  const bool damaged = model.probe.damaged;
  const Nanos left = FailsUntil(model) - Now();
  const std::string message =
      absl::StrCat(model.name(), " has failed ", model.failures.Count(),
                   " times with no request finished in between, and no model that is on ",
                   DeviceOf(model).ledger.device().name, " gives way to it for another ",
                   Seconds(left), " s. `switchyard load ", model.name(), "` tries at once. ",
                   damaged ? "What is wrong: " : "The last failure: ",
                   damaged ? model.probe.doubt : model.failures.last);
  return WithRetryAfter(
      damaged ? absl::FailedPreconditionError(message) : absl::UnavailableError(message), left);
}

// The same of one that has failed for good. While it is being tried, nobody knows how long that
// takes.
absl::Status Router::Impl::GivenUp(const ModelRecord& model) const {
  const FailureLog& failures = model.failures;
  return WithRetryAfter(absl::FailedPreconditionError(absl::StrCat(
                            model.name(), " has failed ", failures.Count(),
                            " times with no request finished in between. It is tried again every ",
                            kProbeFailedEvery / (60 * kSecond), " minutes; `switchyard load ",
                            model.name(), "` does so at once. The last failure: ", failures.last)),
                        std::max(failures.not_before - Now(), kLeastRetry));
}

// Whoever could not be loaded the last time has its master complete first: nobody gives way to what
// fails near its end.
bool Router::Impl::Prepared(const ModelRecord& model) const {
  const MasterSlot& master = model.master;
  const bool has_weights = LeaseOf(model).held.weights >= model.needs.image;
  const bool has_master = master.attached && (master.phase == MasterSlot::Phase::kComplete ||
                                              (master.soon && !model.failures.Unloaded()));
  return Ready(model) && model.lease.motion == Motion::kRest && (has_weights || has_master);
}

// In the order of names.
std::vector<Demand> Router::Impl::Demands(size_t device) const {
  const double copy = state_.devices[device]->copy.bytes_per_second();
  const uint64_t in_flight = KvInFlight(device);
  std::vector<Demand> demands;
  for (const auto& [name, model] : state_.models) {
    if (model->device != device) continue;
    std::optional<Demand> demand = DemandOf(*model);
    if (!demand) continue;
    const uint64_t held = std::min(LeaseOf(*model).held.weights, model->needs.image);
    const double rate = model->host.streamed ? model->master.fill.bytes_per_second() : copy;
    demand->swap = SwapTime(model->needs.image - held + model->worker.host_kv + in_flight, rate);
    const bool operators = demand->kind == DemandKind::kSwitch;
    demand->turn = std::max(LeastTurn(demand->swap), operators ? kSwitchedTurn : 0);
    demands.push_back(*std::move(demand));
  }
  return demands;
}

// The model has become resident, for which `moved` bytes have moved.
void Router::Impl::BeginTurn(ModelRecord& model, uint64_t moved) {
  const RateMeter& rate = model.host.streamed ? model.master.fill : DeviceOf(model).copy;
  const Nanos swap = SwapTime(moved, rate.bytes_per_second());
  model.turn_until = Now() + LeastTurn(swap);
  model.switched = false;
}

// What the turn under way on the device may still take. (A swap under way is a demand still, but
// for one for a pin, which begins while a request waits only if it is short.)
Nanos Router::Impl::Present(size_t device) const {
  Nanos present = 0;
  for (const auto& [name, model] : state_.models) {
    if (model->device != device || (model->requests.empty() && !model->switched)) continue;
    const Nanos left = model->turn_until - Now();
    if (left > present && Resident(*model)) present = left;  // else strangers have ended it
  }
  return present;
}

// What all other demands take of the model's device.
Nanos Router::Impl::OthersTime(const ModelRecord& model, const std::vector<Demand>& demands) const {
  Nanos others = 0;
  for (const Demand& demand : demands) {
    if (demand.model != model.name()) others += TurnTime(demand, kRelease);
  }
  return others;
}

// When the model's next worker is started, if it has none and may not have one before, or when it
// is loaded again; else 0.
Nanos Router::Impl::BackOffUntil(const ModelRecord& model) const {
  const bool no_worker = model.worker.phase == Phase::kNone;
  const Nanos until = std::max(no_worker ? model.failures.not_before : 0,
                               LoadsLater(model) ? model.failures.load_not_before : 0);
  return until > Now() ? until : 0;
}

absl::Status Router::Impl::TriedTooLate(const ModelRecord& model, Nanos bound) const {
  const Nanos back_off = BackOffUntil(model) - Now();
  const bool loads = LoadsLater(model);
  return WithRetryAfter(
      absl::UnavailableError(absl::StrCat(
          loads ? "" : "the worker of ", model.name(), loads ? " is loaded" : " is started",
          " again in ", Seconds(back_off), " s, and no request waits longer than ", Seconds(bound),
          " s: ", model.failures.last)),
      back_off);
}

// That a new request would have.
Nanos Router::Impl::BoundOfNew(const ModelRecord& model) const {
  return WaitBound(MaxWait(model), Present(model.device), kRelease,
                   OthersTime(model, Demands(model.device)));
}

// From when on a new request can be served within its bound, as far as one can tell; 0: it can.
// Who is kept out is told so rather than made to wait, also if that is over soon.
Nanos Router::Impl::HopelessUntil(const ModelRecord& model) const {
  if (KeptOut(model)) return FailsUntil(model);
  const Nanos until = BackOffUntil(model);
  if (until <= Now() + MaxWait(model)) return 0;  // no bound is less: others need not be asked
  const Nanos from = until - BoundOfNew(model);
  return from <= Now() ? 0 : from;
}

absl::Status Router::Impl::Hopeless(const ModelRecord& model) const {
  if (KeptOut(model)) return NobodyGivesWay(model);
  return HopelessUntil(model) == 0 ? absl::OkStatus() : TriedTooLate(model, BoundOfNew(model));
}

// The same for requests that came while there was a worker, or a shorter back-off.
void Router::Impl::RefuseHopeless(ModelRecord& model) {
  const Nanos until = BackOffUntil(model);
  if (until == 0) return;
  const WaitMeter& meter = model.clock.meter;
  for (const RequestId id : meter.DueBy(until - 1, model.ages, Now())) {
    Request& request = *FindRequest(id);
    BreakOff(request, TriedTooLate(model, meter.BoundOf(request.meter_at)), true);
  }
}

// Whether others hold up the model's requests: it is not there, and nothing of it is on its way to
// the device or to its master.
bool Router::Impl::HeldUp(const ModelRecord& model, bool resident) const {
  if (resident || !Ready(model)) return !resident;
  return !ComesIn(model) && model.master.phase != MasterSlot::Phase::kFilling;
}

void Router::Impl::KeepMeter(ModelRecord& model) {
  WaitClock& clock = model.clock;
  const bool resident = Resident(model);
  if (resident && clock.resident_since == 0) clock.resident_since = Now();
  if (!resident && clock.resident_since > 0) {
    // Being there for a moment is no turn.
    const Nanos stayed = Now() - std::exchange(clock.resident_since, 0);
    if (stayed >= kLeastTurn && Now() >= model.turn_until) {
      clock.meter.BeginAnew(Now());
      clock.anew_at = Now();
    }
  }
  const bool runs = HeldUp(model, resident);
  if (runs != clock.meter.runs()) clock.meter.SetRuns(runs, Now());
}

// Keeps the clocks of all models of the device, and refuses what is overdue.
void Router::Impl::PumpWaits(size_t index, const std::vector<Demand>& demands) {
  const Nanos present = Present(index);
  Nanos all = 0;
  for (const Demand& demand : demands) all += TurnTime(demand, kRelease);
  auto own = demands.begin();  // in the order of names, too
  for (const auto& [name, model] : state_.models) {
    if (model->device != index) continue;
    Nanos others = all;
    if (own != demands.end() && own->model == name) others -= TurnTime(*own++, kRelease);
    KeepMeter(*model);
    WaitClock& clock = model->clock;
    if (!clock.meter.runs() || model->ages.empty()) {
      clock.alarm.Clear();
      clock.look_at = 0;
      continue;
    }
    const Nanos bound = WaitBound(MaxWait(*model), present, kRelease, others);
    clock.meter.SetBound(bound, model->ages, Now());
    if (LooksAgain(clock, clock.meter.FirstDue(model->ages, Now()))) continue;
    RefuseOverdue(*model, present + others);
    RefuseHopeless(*model);
    const std::optional<Nanos> next = clock.meter.FirstDue(model->ages, Now());
    if (!next || (clock.alarm.armed() && clock.alarm_at <= *next)) continue;  // it looks again
    clock.alarm_at = *next;
    Arm(clock.alarm, *next - Now(), [] {});
  }
}

// Whether nobody looked when a request was `due`, for so long that what came meanwhile is to be
// read before anyone is refused.
bool Router::Impl::LooksAgain(WaitClock& clock, std::optional<Nanos> due) {
  const bool late = due && *due < Now() - kSecondLook;
  if (late && clock.look_at == 0) {
    clock.look_at = clock.alarm_at = Now() + kSecondLook;
    Arm(clock.alarm, kSecondLook, [] {});
  }
  if (late && Now() < clock.look_at) return true;
  clock.look_at = 0;
  return false;
}

// `retry`: when it may be its turn.
void Router::Impl::RefuseOverdue(ModelRecord& model, Nanos retry) {
  const WaitMeter& meter = model.clock.meter;
  const std::vector<uint64_t> overdue = meter.DueBy(Now(), model.ages, Now());
  if (overdue.empty()) return;
  const std::string why =
      model.without_room
          ? NoRoomReason(DeviceView(model.device), ModelViews(model.device), ModelView(model))
          : absl::StrJoin(WhyNotPaused(model.device), ", ");
  const char* advice = why.empty() || model.without_room
                           ? ""
                           : ". Ask again when what runs there is done, or unload its model";
  for (const RequestId id : overdue) {
    Request& request = *FindRequest(id);
    const std::string message = absl::StrCat(
        model.name(), " did not get its turn on ", DeviceOf(model).ledger.device().name, " within ",
        Seconds(meter.BoundOf(request.meter_at)), " s, longer than which no request waits",
        why.empty() ? "" : ": ", why, advice);
    const absl::Status status =
        Ready(model) ? absl::ResourceExhaustedError(message) : absl::UnavailableError(message);
    BreakOff(request, WithRetryAfter(status, std::max(retry, kLeastRetry)), true);
  }
}

}  // namespace switchyard::supervisor
