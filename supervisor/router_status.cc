// What the router tells of itself: status, watching, health.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "common/utf8.h"
#include "common/version.h"
#include "supervisor/router_impl.h"

namespace switchyard::supervisor {

constexpr Nanos kDefaultInterval = 200 * kMillisecond;
constexpr Nanos kLeastInterval = 20 * kMillisecond;  // the whole status is made anew each time
// What others take of the device may pass as fast as a back-off does.
constexpr Nanos kLookAgain = 100 * kMillisecond;

v1::ModelState Router::Impl::StateOf(const ModelRecord& model) const {
  const LeaseSlot& lease = model.lease;
  if (!model.entry.problem.ok() || !model.misfit.ok() || model.failures.failed ||
      model.worker.quarantined) {
    return v1::FAILED;
  }
  const bool drains = lease.motion == Motion::kShrink &&
                      !model.needs.Whole(LeaseOf(model).granted) &&
                      (std::max<size_t>(model.running, model.worker.running) > 0 || Drains(model));
  if (drains || (model.leave != Leave::kNo && model.running > 0)) return v1::DRAINING;
  if (Resident(model) && !ComesIn(model)) return v1::RESIDENT;
  if (lease.motion == Motion::kGrow) return v1::LOADING;
  const bool warm = model.master.phase == MasterSlot::Phase::kComplete && model.master.attached &&
                    !model.host.streamed;
  return warm ? v1::WARM : v1::COLD;
}

// What is wrong now, the worst of it. `no_room`: why it has no room, if so.
std::string Router::Impl::ErrorOf(const ModelRecord& model, const std::string& no_room) const {
  if (!model.entry.problem.ok()) return std::string(model.entry.problem.message());
  if (!model.misfit.ok()) return std::string(model.misfit.message());
  if (model.failures.failed) return model.failures.last;
  if (!no_room.empty()) return no_room;
  if (KeptOut(model)) return std::string(NobodyGivesWay(model).message());
  if (model.failures.stands) return model.failures.last;
  return model.probe.doubt;
}

// Of the models that have none, by their names.
std::map<std::string, std::string> Router::Impl::NoRoomReasons() const {
  std::map<std::string, std::string> reasons;
  for (size_t i = 0; i < state_.devices.size(); ++i) {
    const bool any = std::any_of(state_.models.begin(), state_.models.end(), [i](const auto& each) {
      return each.second->device == i && each.second->without_room;
    });
    if (!any) continue;
    const std::vector<SchedulerModel> views = ModelViews(i);
    for (const SchedulerModel& view : views) {
      const std::string& name = view.tenant.model;
      if (Find(name)->without_room) reasons[name] = NoRoomReason(DeviceView(i), views, view);
    }
  }
  return reasons;
}

v1::ModelStatus Router::Impl::ModelStatusOf(const ModelRecord& model,
                                            const std::string& no_room) const {
  const LeaseEntry lease = LeaseOf(model);
  v1::ModelStatus status;
  status.set_name(model.name());
  status.set_family(model.entry.plan.family());
  status.set_state(StateOf(model));
  status.set_is_default(model.name() == state_.default_model);
  status.set_pinned(model.pinned);
  status.set_fixed_bytes(model.needs.fixed);
  status.set_weight_bytes(model.needs.image);
  status.set_resident_bytes(lease.held.weights);
  status.set_kv_bytes(lease.held.kv);
  // A worker's last words and a file's names are bytes from outside.
  status.set_error(ValidUtf8(ErrorOf(model, no_room)));
  const FailureLog& failures = model.failures;
  if (!failures.last.empty()) {
    status.set_last_failure(ValidUtf8(failures.last));
    status.set_last_failure_age_s(static_cast<double>(Now() - failures.last_at) / kSecond);
  }
  status.set_device(model.entry.model.device().empty() ? DeviceOf(model).ledger.device().name
                                                       : model.entry.model.device());
  status.set_master_bytes(state_.host.master(model.name()));
  status.set_streamed(model.host.streamed);
  const uint32_t paused = static_cast<uint32_t>(model.paused);
  status.set_running(static_cast<uint32_t>(model.running));
  status.set_paused(paused);
  status.set_queued(static_cast<uint32_t>(model.requests.size() - model.running) - paused);
  status.set_worker_pid(model.worker.port ? model.worker.port->pid() : 0);
  status.set_requests(model.finished);
  status.set_tokens(model.tokens);
  status.set_prompt_tokens(model.prompt_tokens);
  if (model.worker.port) {
    status.set_kv_blocks_used(model.worker.heartbeat.kv_blocks_used());
    status.set_kv_blocks_total(model.worker.heartbeat.kv_blocks_total());
  }
  status.set_loads(model.loads);
  TellEnergy(model, status);
  status.set_restarts(model.failures.restarts);
  status.set_idle_s(model.requests.empty() ? static_cast<double>(Now() - model.last_use) / kSecond
                                           : 0);
  *status.mutable_plan() = model.entry.plan;
  *status.mutable_plan()->mutable_notes() = model.plan.notes();  // as its worker has them
  return status;
}

v1::Status Router::Impl::GetStatus() const {
  v1::Status status;
  for (const auto& slot : state_.devices) *status.add_devices() = DeviceStatusOf(*slot);
  status.mutable_host()->set_budget_bytes(state_.host.budget());
  status.mutable_host()->set_used_bytes(state_.host.used());
  *status.mutable_models() = ListModels().models();
  status.set_uptime_s(static_cast<double>(Now() - state_.started_at) / kSecond);
  status.set_version(Version());
  status.set_default_model(state_.default_model);
  if (!state_.reload_error.empty()) {
    status.set_reload_error(ValidUtf8(state_.reload_error));
    status.set_reload_error_age_s(static_cast<double>(Now() - state_.reload_error_at) / kSecond);
  }
  return status;
}

void Router::Impl::NoteReload(const absl::Status& ended) {
  state_.reload_error = std::string(ended.message());  // empty if it is good
  state_.reload_error_at = Now();
  status_changed_ = true;
  PumpWatchers();
}

v1::ListModelsReply Router::Impl::ListModels() const {
  v1::ListModelsReply reply;
  std::map<std::string, std::string> no_room = NoRoomReasons();
  for (const std::string& name : state_.order) {
    const ModelRecord& model = *Find(name);
    if (model.leave != Leave::kRemove) *reply.add_models() = ModelStatusOf(model, no_room[name]);
  }
  return reply;
}

absl::StatusOr<v1::ModelStatus> Router::Impl::GetModel(const std::string& name) const {
  ASSIGN_OR_RETURN(const ModelRecord* model, Lookup(name));
  return ModelStatusOf(*model, NoRoomReasons()[model->name()]);
}

Standing::Kind Router::Impl::StandingOf(const ModelRecord& model) const {
  using Kind = Standing::Kind;
  const bool cannot = !Refusal(model).ok() || model.without_room || KeptOut(model) ||
                      model.leave == Leave::kRemove || FailsToLoad(model);
  if (cannot) return Kind::kCannot;
  const bool answers = Ready(model) && model.probe.doubt.empty() &&
                       (!model.pinned || (Resident(model) && Proved(model)));
  return answers ? Kind::kAnswers : Kind::kComes;
}

std::vector<Standing> Router::Impl::Standings() const {
  std::vector<Standing> standings;
  for (const std::string& name : state_.order) {
    const ModelRecord& model = *Find(name);
    const uint64_t got = model.master.done + LeaseOf(model).held.total() + (Ready(model) ? 1 : 0);
    standings.push_back({name, model.pinned, StandingOf(model), got});
  }
  return standings;
}

void Router::Impl::WatchStatus(uint32_t min_interval_ms, std::shared_ptr<StatusSink> sink) {
  if (state_.draining) {
    return sink->Finish(absl::UnavailableError("the supervisor is shutting down"));
  }
  auto watcher = std::make_unique<Watcher>(std::move(sink), ports_.timers);
  watcher->interval = min_interval_ms == 0
                          ? kDefaultInterval
                          : std::max(kLeastInterval, min_interval_ms * kMillisecond);
  SendStatus(*watcher);
  state_.watchers.push_back(std::move(watcher));
}

void Router::Impl::StopWatching(const StatusSink* sink) {
  state_.watchers.remove_if([&](const auto& watcher) { return watcher->sink.get() == sink; });
}

void Router::Impl::SendStatus(Watcher& watcher) {
  watcher.last_sent = Now();
  watcher.sink->Write(GetStatus());
}

void Router::Impl::PumpWatchers() {
  if (!status_changed_) return;
  status_changed_ = false;
  for (const auto& watcher : state_.watchers) {
    if (watcher->alarm.armed()) continue;
    Watcher* target = watcher.get();
    const Nanos due = watcher->last_sent + watcher->interval - Now();
    watcher->alarm.Set(std::max<Nanos>(due, 0), [this, target] { SendStatus(*target); });
  }
}

// Whether a request would be accepted and answered, as far as one can tell. Who is not served for
// the time that its back-off still takes is looked at again when that is short enough.
bool Router::Impl::Serving(ModelRecord& model) {
  const bool could = !state_.draining && model.leave != Leave::kRemove && Refusal(model).ok() &&
                     !model.without_room && model.probe.doubt.empty();
  const Nanos hopeless_until = could ? HopelessUntil(model) : 0;
  if (hopeless_until == 0) {
    model.hopeful.Clear();
    return could;
  }
  if (model.hopeful.armed() && model.hopeful_at <= hopeless_until) return false;
  model.hopeful_at = std::max(hopeless_until, Now() + kLookAgain);
  Arm(model.hopeful, model.hopeful_at - Now(), [] {});
  return false;
}

// Tells only what has changed. Inference is served as long as some model is, or there is none to be
// served; a balancer that asks for a model asks for that model.
void Router::Impl::PumpHealth() {
  bool any = false;
  bool none = true;
  for (const auto& [name, model] : state_.models) {
    const bool serving = Serving(*model);
    any |= serving;
    none &= model->leave == Leave::kRemove;
    TellHealth(*model, serving);
  }
  const bool inference = !state_.draining && (any || none);
  if (state_.told_inference != inference) {
    state_.told_inference = inference;
    for (const char* service : {"", "switchyard.v1.Inference"}) {
      ports_.health->SetServing(service, inference);
    }
  }
  const bool control = !state_.draining;
  if (state_.told_control == control) return;
  state_.told_control = control;
  ports_.health->SetServing("switchyard.v1.Control", control);
}

void Router::Impl::TellHealth(ModelRecord& model, bool serving) {
  if (model.told_serving == serving) return;
  model.told_serving = serving;
  ports_.health->SetServing(HealthService(model), serving);
}

std::string Router::Impl::HealthService(const ModelRecord& model) {
  return absl::StrCat("model/", model.name());
}

}  // namespace switchyard::supervisor
