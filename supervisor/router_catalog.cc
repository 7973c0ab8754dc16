// What changes the set of models, and their standing: Pin, Unload, Reload.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/status_macros.h"
#include "common/utf8.h"
#include "supervisor/router_impl.h"

namespace switchyard::supervisor {
namespace {

// What a running worker does not care about.
v1::Model WithoutPolicy(v1::Model model) {
  model.clear_pinned();
  model.clear_idle_timeout();
  model.clear_max_wait();
  return model;
}

bool Same(const google::protobuf::Message& a, const google::protobuf::Message& b) {
  return a.SerializeAsString() == b.SerializeAsString();
}

}  // namespace

absl::Status Router::Impl::Pin(const std::string& name, bool pinned) {
  absl::StatusOr<ModelRecord*> found = ResolveNamed(name);
  if (!found.ok()) return found.status();
  ModelRecord& model = **found;
  dirty_ = true;
  if (pinned) {
    RETURN_IF_ERROR(Refusal(model));
    RETURN_IF_ERROR(MayPin(model));
    model.pinned = true;
    model.failures.ForgiveLoads();
    model.told_no_room = false;
    if (!Resident(model)) QueueSwitch(model);  // as a Load that nobody watches
  } else {
    model.pinned = false;  // whatever has become of it
    // The load that pinning asked for is not wanted any more.
    state_.switches.remove_if(
        [&](const SwitchOp& op) { return op.model == model.name() && !op.asked; });
  }
  Pump();
  return absl::OkStatus();
}

// Pinned models never give way, so all of a device's must fit on it together.
absl::Status Router::Impl::MayPin(const ModelRecord& model) const {
  if (model.pinned) return absl::OkStatus();
  std::vector<PinnedModel> pinned;
  for (const std::string& name : state_.order) {
    const ModelRecord& other = *Find(name);
    const bool may_hold =
        other.entry.problem.ok() && other.misfit.ok() && other.leave != Leave::kRemove;
    if (other.pinned && may_hold && other.device == model.device) {
      pinned.push_back({name, other.needs});
    }
  }
  return CheckPins(DeviceOf(model).ledger.device(), pinned, {model.name(), model.needs});
}

void Router::Impl::Unload(RequestId id, const std::string& name, Reply<v1::UnloadReply> reply) {
  absl::StatusOr<ModelRecord*> found = ResolveNamed(name);
  if (!found.ok()) return reply(found.status());
  ModelRecord& model = **found;
  if (model.worker.quarantined) return reply(Refusal(model));
  if (model.pinned) {
    return reply(absl::FailedPreconditionError(absl::StrCat(
        model.name(), " is pinned: unpin it first (`switchyard pin ", model.name(), " --off`)")));
  }
  model.unload_replies[id] = std::move(reply);
  BeginLeave(model, Leave::kUnload);
  Pump();
}

// The model ends: running sequences may finish within the drain timeout. A model that is replaced
// keeps what waits for it.
void Router::Impl::BeginLeave(ModelRecord& model, Leave why) {
  model.leave = std::max(model.leave, why);
  model.launch_wanted = model.master.prefetch = false;
  dirty_ = true;
  const std::string name = model.name();
  DeviceSlot& device = DeviceOf(model);
  if (device.swap && device.swap->model == name) AbortSwap(device);
  const char* verb = why == Leave::kRemove    ? " was removed"
                     : why == Leave::kReplace ? " is being changed by a reload: ask again"
                                              : " is being unloaded: ask again";
  const absl::Status status = absl::UnavailableError(absl::StrCat(name, verb));
  FinishPrefetches(model, status);
  if (why == Leave::kReplace) {
    TakeBackWaiting(model);
  } else {
    FailSwitch(name, status);
    EndWaiting(model, status);
    EndCalls(model, status);
  }
  if (model.leave_deadline.armed() || model.leave_overdue) return;
  Arm(model.leave_deadline, options_.drain_timeout, [this, name] {
    if (ModelRecord* late = Find(name)) late->leave_overdue = true;
  });
}

void Router::Impl::PumpLeave(const std::string& name) {
  ModelRecord& model = *Find(name);
  if (model.leave == Leave::kNo) return;
  const bool busy = model.running > 0 && !model.leave_overdue;
  if (model.worker.phase == Phase::kNone) return CompleteLeave(model);
  if (!busy) EndWorker(model, kEndPatience);
}

// Its worker has been reaped: nothing of it is left but the master.
void Router::Impl::CompleteLeave(ModelRecord& model) {
  const std::string name = model.name();
  const Leave why = model.leave;
  DiscardMaster(model);
  model.leave = Leave::kNo;
  model.leave_overdue = false;
  model.leave_deadline.Clear();
  model.idle.Clear();
  model.failures.stands = false;  // it was of the worker, or of the load, that is gone
  model.probe.Trust();            // its next worker is a new one, of which nothing is asked yet
  dirty_ = true;
  auto replies = std::move(model.unload_replies);
  model.unload_replies.clear();
  if (model.replacement) {
    model.entry = *std::exchange(model.replacement, std::nullopt);
    Install(model);
    if (absl::Status refusal = Refusal(model); !refusal.ok()) {
      FailDemand(model, refusal);
      FinishPrefetches(model, refusal);
      EndWaiting(model, refusal);
      EndCalls(model, refusal);
    }
  } else if (why == Leave::kRemove) {
    const absl::Status gone = absl::NotFoundError(absl::StrCat(name, " was removed"));
    EndWaiting(model, gone);
    EndCalls(model, gone);
    ports_.health->Remove(HealthService(model));
    state_.models.erase(name);
    state_.order.erase(std::find(state_.order.begin(), state_.order.end(), name));
    ChooseDefault();
  }
  for (auto& [id, reply] : replies) reply(v1::UnloadReply());
}

// What the entry of a new catalog promises to keep on its device, if anything: it is pinned, also
// by an operator, and could be kept until now.
std::optional<PinnedModel> Router::Impl::StaysPinned(const ModelEntry& entry) const {
  const std::string& name = entry.model.name();
  const ModelRecord* now = Find(name);
  const bool known = now != nullptr && now->leave == Leave::kNo && now->entry.problem.ok() &&
                     now->misfit.ok() && !entry.plan.model().empty();
  const bool same = known && Same(now->entry.model, entry.model);
  if (!(same ? now->pinned : entry.model.pinned()) || (!known && !entry.problem.ok())) {
    return std::nullopt;
  }
  const bool same_plan = same && Same(now->entry.plan, entry.plan);
  return PinnedModel{name, same_plan ? now->needs : NeedsOf(entry.plan)};
}

// A pin is a promise: a device that is made smaller still holds what is pinned on it.
absl::Status Router::Impl::MayResize(const std::vector<Device>& devices,
                                     const std::vector<ModelEntry>& catalog) const {
  for (const Device& device : devices) {
    const size_t index = IndexOf(device.name);
    Device resized = state_.devices[index]->ledger.device();
    if (resized.name != device.name || device.capacity_bytes >= resized.capacity_bytes) continue;
    resized.capacity_bytes = device.capacity_bytes;
    std::vector<PinnedModel> pinned;
    for (const ModelEntry& entry : catalog) {
      if (IndexOf(entry.model.device()) != index) continue;
      if (auto model = StaysPinned(entry)) pinned.push_back(*std::move(model));
    }
    RETURN_IF_ERROR(CheckKeepsPins(resized, pinned));
  }
  return absl::OkStatus();
}

// A planner that could not tell is no reason to end what serves: where the text is as it was, and
// was good, the new entry gets the plan and the device that are in force.
void Router::Impl::KeepUnplanned(std::vector<ModelEntry>& catalog,
                                 v1::ReloadConfigReply& reply) const {
  for (ModelEntry& entry : catalog) {
    if (!entry.not_planned) continue;
    reply.add_not_planned(entry.model.name());
    const ModelRecord* now = Find(entry.model.name());
    if (now == nullptr) continue;
    const ModelEntry& old = now->replacement ? *now->replacement : now->entry;
    ModelEntry kept{entry.model, old.plan, absl::OkStatus(), /*not_planned=*/false};
    if (kept.model.device().empty()) kept.model.set_device(old.model.device());
    if (old.problem.ok() && Same(WithoutPolicy(old.model), WithoutPolicy(kept.model))) {
      entry = std::move(kept);
    }
  }
}

// In the order of the files.
void Router::Impl::TellProblems(v1::ReloadConfigReply& reply) const {
  for (const std::string& name : state_.order) {
    const ModelRecord& model = *Find(name);
    if (model.leave == Leave::kRemove) continue;
    const absl::Status& why = model.replacement    ? model.replacement->problem
                              : !model.misfit.ok() ? model.misfit
                                                   : model.entry.problem;
    if (why.ok()) continue;
    v1::ReloadConfigReply::Problem& problem = *reply.add_problems();
    problem.set_model(name);
    problem.set_reason(ValidUtf8(std::string(why.message())));
  }
}

// Pins that have no room beside others': those of models that are there, then in the order of the
// files.
void Router::Impl::TellPinsWithoutRoom(v1::ReloadConfigReply& reply) const {
  std::map<size_t, std::vector<PinnedModel>> pinned_on;
  for (const bool there : {true, false}) {
    for (const std::string& name : state_.order) {
      const ModelRecord& model = *Find(name);
      if (model.leave == Leave::kRemove) continue;
      const ModelEntry& entry = model.replacement ? *model.replacement : model.entry;
      const bool pinned = model.replacement ? entry.model.pinned() : model.pinned;
      const bool stays = Resident(model) && !model.replacement;
      if (!pinned || stays != there || !entry.problem.ok() || !model.misfit.ok()) continue;
      const size_t device = IndexOf(entry.model.device());
      PinnedModel more{name, model.replacement ? NeedsOf(entry.plan) : model.needs};
      const absl::Status room =
          CheckPins(state_.devices[device]->ledger.device(), pinned_on[device], more);
      if (room.ok()) {
        pinned_on[device].push_back(std::move(more));
        continue;
      }
      v1::ReloadConfigReply::Problem& problem = *reply.add_problems();
      problem.set_model(name);
      problem.set_reason(std::string(room.message()));
    }
  }
}

// What made them fail may be mended, and is nothing that an entry tells: a file that was away.
std::vector<std::string> Router::Impl::TryFailedAgain() {
  std::vector<std::string> names;
  for (const std::string& name : state_.order) {
    ModelRecord& model = *Find(name);
    if (!model.failures.failed || model.leave != Leave::kNo) continue;
    model.failures.Forgive(Now());
    model.launch_wanted = true;
    names.push_back(name);
  }
  dirty_ = true;
  Pump();
  return names;
}

absl::StatusOr<v1::ReloadConfigReply> Router::Impl::Reload(std::vector<ModelEntry> catalog,
                                                           const std::vector<Device>& devices) {
  if (state_.draining) return absl::UnavailableError("the supervisor is shutting down");
  v1::ReloadConfigReply reply;
  KeepUnplanned(catalog, reply);
  RETURN_IF_ERROR(MayResize(devices, catalog));
  Resize(devices, reply);
  std::set<std::string> kept;
  std::vector<std::string> order;
  for (ModelEntry& entry : catalog) {
    const std::string name = entry.model.name();
    kept.insert(name);
    order.push_back(name);
    ModelRecord* model = Find(name);
    if (model == nullptr) {
      reply.add_added(name);
      AddModel(std::move(entry));
      continue;
    }
    const ModelEntry& old = model->replacement ? *model->replacement : model->entry;
    const bool same_policy = Same(old.model, entry.model);
    const bool same_work = Same(WithoutPolicy(old.model), WithoutPolicy(entry.model)) &&
                           Same(old.plan, entry.plan) && old.problem == entry.problem &&
                           model->leave != Leave::kRemove;
    if (same_work && same_policy) continue;
    (model->leave == Leave::kRemove ? reply.add_added(name) : reply.add_changed(name));
    if (same_work && model->leave == Leave::kNo) {
      model->failures.ForgiveLoads();  // newly pinned in the configuration is as pinned at start
      model->told_no_room = false;
      model->pinned = entry.model.pinned();
      model->entry = std::move(entry);
      Touch(*model);
      continue;
    }
    model->replacement = std::move(entry);
    model->leave = Leave::kNo;  // also takes back a removal
    BeginLeave(*model, Leave::kReplace);
  }
  for (const std::string& name : state_.order) {
    if (kept.count(name) == 0) order.push_back(name);  // on its way out
  }
  state_.order = std::move(order);
  for (const auto& [name, model] : state_.models) {
    if (kept.count(name) > 0 || model->leave == Leave::kRemove) continue;
    reply.add_removed(name);
    model->replacement.reset();
    BeginLeave(*model, Leave::kRemove);
  }
  for (const auto& [name, model] : state_.models) {
    if (model->leave == Leave::kNo) NoteFit(*model);
  }
  TellProblems(reply);
  TellPinsWithoutRoom(reply);
  const std::string default_before = state_.default_model;
  ChooseDefault();
  reply.set_default_model(state_.default_model);
  if (state_.default_model != default_before) reply.set_default_model_before(default_before);
  dirty_ = true;
  Pump();
  return reply;
}

}  // namespace switchyard::supervisor
