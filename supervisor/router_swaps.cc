// Asks the scheduler, and carries out one swap at a time on each device.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/log.h"
#include "supervisor/retry_after.h"
#include "supervisor/router_impl.h"

namespace switchyard::supervisor {
namespace {

constexpr Nanos kNoRoomRetry = 10 * kSecond;
// Strangers' bytes that were there for so long, several samples, are a reason to refuse: a program
// that starts or ends may take much for a moment.
constexpr Nanos kForeignStays = 2 * kSecond;

absl::Status NoRoom(const std::string& reason) {
  return WithRetryAfter(absl::ResourceExhaustedError(reason), kNoRoomRetry);
}

}  // namespace

void Router::Impl::PumpDevice(size_t index) {
  DeviceSlot& device = *state_.devices[index];
  for (const auto& [name, model] : state_.models) {
    if (model->device == index && model->lease.pause_wanted) TryPause(*model);
  }
  std::vector<SchedulerModel> models = ModelViews(index);
  NoteRoom(index, models);
  if (!state_.ending) {
    std::vector<Demand> demands = Demands(index);
    device.wanted = device.swap.has_value() || !demands.empty();
    if (RefuseMisfits(index) || RefuseWithoutRoom(index, models, demands) || RefuseKeptOut(index)) {
      return;  // everything is looked at anew
    }
    PumpWaits(index, demands);
    HurryDrains(index, demands);
  }
  // A swap may take long, be it for a drain or for a disk: strangers do not wait for it.
  const std::string comes_in = device.swap ? device.swap->model : "";
  const std::vector<Shrink> relief = PlanRelief(DeviceView(index), models, comes_in, Now());
  if (!state_.ending) ApplyShrinks(relief, options_.drain_timeout);
  if (device.swap) return AdvanceSwap(device, index);
  if (state_.ending) return;
  if (!relief.empty()) models = ModelViews(index);
  std::vector<Demand> demands = Demands(index);
  for (const Demand& demand : demands) AwaitSpared(demand);
  const bool wanted = std::any_of(demands.begin(), demands.end(),
                                  [this](const Demand& each) { return StopsGrowth(each); });
  Decision decision = Decide(DeviceView(index), models, std::move(demands), Now());
  const std::set<std::string> blocked(decision.blocked.begin(), decision.blocked.end());
  for (const auto& [name, model] : state_.models) {
    if (model->device != index) continue;
    const bool was = std::exchange(model->blocked, blocked.count(name) > 0);
    dirty_ |= model->blocked != was;
  }
  for (const std::string& name : decision.refused) FailSwitch(name, Outlasted(name));
  if (decision.start) return StartSwap(device, *std::move(decision.start));
  if (!wanted) {
    GrowPools(index, models);
    OpenDevice(device);
  }
  if (decision.recheck_at > 0) RecheckAt(device, decision.recheck_at);
}

// One that is due earlier stays, and decides anew then: setting a timer again and again costs more
// than deciding does.
void Router::Impl::RecheckAt(DeviceSlot& device, Nanos at) {
  if (device.recheck.armed() && device.recheck_at <= at) return;
  device.recheck_at = at;
  Arm(device.recheck, std::max<Nanos>(at - Now(), 1), [] {});
}

// Who could not come in now: what health and status tell of before anybody asks.
void Router::Impl::NoteRoom(size_t index, const std::vector<SchedulerModel>& models) {
  const std::vector<bool> fits = HaveRoom(DeviceView(index), models);
  size_t i = 0;  // `models` are in this order, too
  for (const auto& [name, model] : state_.models) {
    if (model->device != index) continue;
    const size_t view = i++;
    const bool had_none = model->without_room;
    model->without_room = !fits[view] && !Resident(*model);
    dirty_ |= model->without_room != had_none;  // its worker and master were looked at before
    model->kept_out = IsKeptOut(*model, models);
    PumpTrial(*model);
    if (!model->without_room || !model->pinned || model->told_no_room) continue;
    model->told_no_room = true;
    LogWarning("pinned, but there is no room: ",
               NoRoomReason(DeviceView(index), models, models[view]));
  }
}

// Nobody resident gives way to it, and without that it does not fit. An operator may insist.
bool Router::Impl::IsKeptOut(const ModelRecord& model,
                             const std::vector<SchedulerModel>& models) const {
  const bool spares = Failing(model) || model.failures.trial;
  if (!spares || model.without_room || Resident(model)) return false;
  const std::optional<Swap>& swap = DeviceOf(model).swap;
  const std::string comes_in = swap ? swap->model : "";
  return FindSwitch(model.name()) == nullptr && comes_in != model.name() &&
         !HasRoomBesideResidents(DeviceView(model.device), models, model.name(), comes_in);
}

// Tells whoever waits for such a model. True if there was anyone.
bool Router::Impl::RefuseKeptOut(size_t index) {
  bool any = false;
  for (const auto& [name, model] : state_.models) {
    if (model->device != index || model->ages.empty() || model->leave != Leave::kNo) continue;
    if (!KeptOut(*model)) continue;
    EndWaiting(*model, NobodyGivesWay(*model));
    any = true;
  }
  return any;
}

// Tells whoever waits for a model that is too large for the device. True if there was anyone.
bool Router::Impl::RefuseMisfits(size_t index) {
  bool any = false;
  for (const auto& [name, model] : state_.models) {
    const bool waits = FindSwitch(name) != nullptr || !model->ages.empty();
    if (model->device != index || model->misfit.ok() || model->leave != Leave::kNo || !waits) {
      continue;
    }
    FailDemand(*model, model->misfit);
    EndWaiting(*model, model->misfit);
    any = true;
  }
  return any;
}

// Tells at once whoever cannot be served while pins, strangers and quarantine are as they are. True
// if there was anyone.
bool Router::Impl::RefuseWithoutRoom(size_t index, const std::vector<SchedulerModel>& models,
                                     const std::vector<Demand>& demands) {
  const std::vector<Refused> refusals = Refusals(DeviceView(index), models, demands);
  for (const Refused& refusal : refusals) {
    RefuseUnstarted(*Find(refusal.model), NoRoom(refusal.reason));
  }
  return !refusals.empty();
}

// What is paused may go on yet: its client has output, it takes nothing of the device, and pins and
// strangers go. It waits until its bound is over.
void Router::Impl::RefuseUnstarted(ModelRecord& model, const absl::Status& why) {
  FailSwitch(model.name(), why);
  std::vector<RequestId> ids(model.unsent.begin(), model.unsent.end());
  for (const auto& [priority, since, id] : model.waiting) {
    if (FindRequest(id)->stage != Stage::kPaused) ids.push_back(id);
  }
  for (const RequestId id : ids) BreakOff(*FindRequest(id), why, true);
  dirty_ = true;
}

// A pinned model that nobody gives way to for its failures comes in by an event alone, and what is
// free does not help it: who needs it may have it meanwhile.
bool Router::Impl::StopsGrowth(const Demand& demand) const {
  return demand.kind != DemandKind::kBackground || !KeptOut(*Find(demand.model));
}

// Nobody wants to come in: workers that have a master open their GPU, for which they need their
// fixed bytes, and register it. Else the first switch to each model would have to wait for that.
// One after the other, and once: who loses its place before it was there for anybody gets none.
void Router::Impl::OpenDevice(DeviceSlot& device) {
  if (device.ledger.device().name == "cpu") return;
  const auto here = [&](const auto& entry) { return &DeviceOf(*entry.second) == &device; };
  for (const auto& entry : state_.models) {
    if (here(entry) && (Opens(*entry.second) || WantsKv(*entry.second))) return;
  }
  for (const auto& entry : state_.models) {
    ModelRecord& model = *entry.second;
    if (!here(entry) || !MayOpen(model) || device.ledger.free() < model.needs.fixed) continue;
    model.opened = true;
    return SetLease(model, {model.needs.fixed, 0, 0}, Motion::kGrow);
  }
}

bool Router::Impl::MayOpen(const ModelRecord& model) const {
  const bool has_master =
      model.master.phase == MasterSlot::Phase::kComplete && model.master.attached;
  return !model.opened && has_master && !model.host.streamed && Ready(model) &&
         model.leave == Leave::kNo && model.lease.motion == Motion::kRest &&
         LeaseOf(model).charge.total() == 0 && !Failing(model);
}

// That is no motion which decisions wait for: they may ask it meanwhile for what it has.
bool Router::Impl::Opens(const ModelRecord& model) const {
  return model.lease.motion == Motion::kGrow && LeaseOf(model).granted.OnlyFixed();
}

// Nobody wants to come in: what is free goes to those whose sequences wait for KV, and so does what
// idle models have beside, as soon as it is back.
void Router::Impl::GrowPools(size_t index, const std::vector<SchedulerModel>& models) {
  const std::vector<Shrink> room = PlanPoolRoom(DeviceView(index), models, Now());
  if (!room.empty()) return ApplyShrinks(room, options_.drain_timeout);
  for (const PoolGrowth& growth : PlanPools(DeviceView(index), models)) {
    ModelRecord& model = *Find(growth.model);
    model.worker.starved = false;  // until it says so again
    if (Ready(model)) SetLease(model, growth.target, Motion::kGrow);
  }
}

// Whether its sequences wait though its pool could be larger.
bool Router::Impl::WantsKv(const ModelRecord& model) const {
  return model.worker.heartbeat.waiting() > 0 && Resident(model) &&
         LeaseOf(model).granted.kv < model.needs.kv_useful;
}

void Router::Impl::StartSwap(DeviceSlot& device, Decision::Start start) {
  device.swap.emplace();
  device.swap->model = start.demand.model;
  device.swap->demand = start.demand;
  device.swap->before = LeaseOf(*Find(start.demand.model)).granted;
  ShrinkVictims(*device.swap, start.shrinks, start.slack);
  dirty_ = true;
}

// `slack`: for so long they may drain.
void Router::Impl::ShrinkVictims(Swap& swap, const std::vector<Shrink>& shrinks, Nanos slack) {
  for (const Shrink& shrink : shrinks) {
    if (Ready(*Find(shrink.model))) swap.victims.insert(shrink.model);
  }
  ApplyShrinks(shrinks, std::min(options_.drain_timeout, slack));
}

void Router::Impl::ApplyShrinks(const std::vector<Shrink>& shrinks, Nanos drain) {
  for (const Shrink& shrink : shrinks) {
    ModelRecord& victim = *Find(shrink.model);
    Bytes target = shrink.target;
    target.fixed = LeaseOf(victim).granted.fixed;  // comes back with the process only
    if (!Ready(victim)) continue;
    ShrinkTo(victim, target, shrink.end_worker, drain);
  }
}

// Whether sequences of the model are left that must finish or pause before its lease shrinks.
bool Router::Impl::Drains(const ModelRecord& model) const {
  if (model.lease.motion != Motion::kShrink || model.lease.pausing) return false;
  const bool paused = model.paused > 0 || model.worker.paused > 0;
  return std::max<size_t>(model.running, model.worker.running) > 0 ||
         (model.lease.ends_worker && paused);
}

// Whether there was room for the model, and its lease grows.
bool Router::Impl::ComesIn(const ModelRecord& model) const {
  const std::optional<Swap>& swap = DeviceOf(model).swap;
  return swap && swap->growing && swap->model == model.name();
}

bool Router::Impl::VictimsDrain(const Swap& swap) const {
  return std::any_of(swap.victims.begin(), swap.victims.end(), [this](const std::string& name) {
    const ModelRecord* victim = Find(name);
    return victim != nullptr && Drains(*victim);
  });
}

// Somebody's bound may have come to ask for less of the drains that are under way, whoever they are
// for: nobody comes in before they are over.
void Router::Impl::HurryDrains(size_t index, const std::vector<Demand>& demands) {
  const std::optional<Swap>& swap = state_.devices[index]->swap;
  const Demand* first = nullptr;
  for (const Demand& demand : demands) {
    if (demand.kind == DemandKind::kBackground || !demand.prepared) continue;
    if (swap ? demand.model == swap->model : first == nullptr || demand.due < first->due) {
      first = &demand;
    }
  }
  if (first == nullptr) return;
  std::optional<Nanos> until;
  for (const auto& [name, model] : state_.models) {
    if (model->device != index || model->lease.drain_until <= Now() || !Drains(*model)) continue;
    if (!until) {
      until = Now() + std::min(Slack(*first, demands, kRelease, Now()), options_.drain_timeout);
    }
    if (model->lease.drain_until <= *until) continue;
    model->lease.drain_until = *until;
    ArmDrain(*model, *until - Now());
  }
}

// 1. It has grown, or is growing: its LeaseStatus ends the swap.
// 2. Nobody wants it any more: give up, if nothing has been loaded.
// 3. Victims are still giving: wait.
// 4. There is room: grow.
// 5. There is not (strangers took some, a victim died early): plan again with what is left.
void Router::Impl::AdvanceSwap(DeviceSlot& device, size_t index) {
  Swap& swap = *device.swap;
  ModelRecord& model = *Find(swap.model);
  if (swap.growing) return;  // 1
  std::optional<Demand> demand = DemandOf(model);
  if (!demand || !Prepared(model) || state_.ending) return AbortSwap(device);  // 2
  for (const std::string& name : swap.victims) {                               // 3
    const ModelRecord* victim = Find(name);
    if (victim == nullptr || LeaseOf(*victim).quarantined) continue;
    if (victim->lease.motion != Motion::kRest || victim->worker.phase == Phase::kEnding) return;
  }
  const DeviceLedger& ledger = device.ledger;
  const auto target = GrowTarget(model.needs, LeaseOf(model).charge, ledger.free());
  if (target && ledger.over() == 0) {  // 4
    swap.growing = true;
    swap.target = *target;
    return SetLease(model, *target, Motion::kGrow);
  }
  SwapPlan plan = PlanSwap(DeviceView(index), ModelViews(index), *demand, Now());  // 5
  switch (plan.verdict) {
    case Verdict::kGo:
      if (!plan.shrinks.empty()) dirty_ = true;
      return ShrinkVictims(swap, plan.shrinks, Slack(*demand, Demands(index), kRelease, Now()));
    case Verdict::kWait:
    case Verdict::kLater:
    case Verdict::kBlocked:
      return AbortSwap(device);
    case Verdict::kRefuse:
      AbortSwap(device);
      return RefuseUnstarted(model, NoRoom(plan.reason));
  }
}

// The model is resident: its requests run, its switches are done, its turn begins.
void Router::Impl::FinishSwap(DeviceSlot& device) {
  ModelRecord& model = *Find(device.swap->model);
  const Swap swap = *std::exchange(device.swap, std::nullopt);
  BeginTurn(model, swap.target.weights - std::min(swap.before.weights, swap.target.weights));
  NoteLoaded(model);
  for (const auto& [priority, since, id] : model.waiting) {
    Request& request = *FindRequest(id);
    if (request.resident_at == 0) request.resident_at = Now();
  }
  Touch(model);
  ReadySwitch(model.name(), swap.demand.kind == DemandKind::kSwitch);
  dirty_ = true;
}

// The swap ends without its model. Victims that still drain get their leases back; what has been
// freed stays free.
void Router::Impl::AbortSwap(DeviceSlot& device) {
  const std::set<std::string> victims = std::move(device.swap->victims);
  device.swap.reset();
  dirty_ = true;
  for (const std::string& name : victims) {
    if (ModelRecord* victim = Find(name)) GiveBack(*victim);
  }
}

// What a switch is told that would have to wait for them.
absl::Status Router::Impl::Outlasted(const std::string& wanted) const {
  const ModelRecord& model = *Find(wanted);
  return WithRetryAfter(
      absl::ResourceExhaustedError(absl::StrCat(
          wanted, " cannot come in: what runs on ", DeviceOf(model).ledger.device().name,
          " has not finished within ", options_.drain_timeout / kMillisecond, " ms, and ",
          absl::StrJoin(WhyNotPaused(model.device), ", "),
          ". It goes on: ask again when it is done, or unload the model that runs it")),
      std::max(kNoRoomRetry, options_.drain_timeout));
}

// Whoever wanted the model to become resident is told why it does not.
void Router::Impl::FailDemand(ModelRecord& model, const absl::Status& status) {
  FailSwitch(model.name(), status);
  std::vector<RequestId> ids;
  for (const auto& [priority, since, id] : model.waiting) ids.push_back(id);
  for (RequestId id : ids) BreakOff(*FindRequest(id), status, true);
  dirty_ = true;
}

void Router::Impl::OnForeignBytes(const std::string& device, uint64_t bytes) {
  for (const auto& slot : state_.devices) {
    if (slot->ledger.device().name != device || slot->ledger.foreign() == bytes) continue;
    slot->ledger.SetForeign(bytes);
    NoteForeign(*slot);
    ForgiveForStrangers(*slot);
    dirty_ = true;
  }
  Pump();
}

void Router::Impl::OnForeignBetween(const std::string& device, uint64_t least, uint64_t most) {
  for (const auto& slot : state_.devices) {
    if (slot->ledger.device().name != device) continue;
    return OnForeignBytes(device, std::clamp(slot->ledger.foreign(), least, std::max(least, most)));
  }
}

// Keeps the least that strangers had throughout the last kForeignStays.
void Router::Impl::NoteForeign(DeviceSlot& device) {
  const uint64_t bytes = device.ledger.foreign();
  if (bytes <= device.foreign_kept) {
    device.foreign_kept = bytes;
    return device.foreign_alarm.Clear();
  }
  if (device.foreign_alarm.armed()) {
    device.foreign_least = std::min(device.foreign_least, bytes);
    return;
  }
  device.foreign_least = bytes;
  Arm(device.foreign_alarm, kForeignStays, [this, &device] {
    device.foreign_kept = device.foreign_least;
    NoteForeign(device);  // they may have more by now
  });
}

}  // namespace switchyard::supervisor
