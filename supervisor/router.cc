#include "supervisor/router.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/human.h"
#include "common/log.h"
#include "supervisor/retry_after.h"
#include "supervisor/router_impl.h"
#include "supervisor/signs_of_life.h"

namespace switchyard::supervisor {

// At the end workers get this long to go by themselves, and then, killed, to be reaped: the process
// exits within drain + 2 s, whatever they do. The rest of that is the server's.
constexpr Nanos kShutdownPatience = kSecond;
constexpr Nanos kShutdownReaping = 200 * kMillisecond;

namespace {

// As of when models.d was read: a Load finds nothing new, a reload may.
absl::Status ProblemOf(const ModelEntry& entry) {
  const std::string why = Sentence(std::string(entry.problem.message()));
  if (!entry.not_planned) {
    return absl::FailedPreconditionError(absl::StrCat(
        why, absl::IsInvalidArgument(entry.problem)
                 ? " Once that is mended, `switchyard reload` looks again"
                 : " `switchyard reload` looks again at its entry, and at the sizes of `devices` "
                   "in the file of --config; host_memory and --device take a restart"));
  }
  return WithRetryAfter(absl::FailedPreconditionError(absl::StrCat(
                            why, " It is planned again every ", kPlanAgainEvery / (60 * kSecond),
                            " minutes; `switchyard reload` does so at once")),
                        kPlanAgainEvery);
}

}  // namespace

Router::Impl::Impl(RouterOptions options, std::vector<ModelEntry> catalog, Ports ports)
    : options_(std::move(options)),
      ports_(ports),
      state_(options_.host_budget_bytes, ports.timers) {
  for (const Device& device : options_.devices) {
    state_.devices.push_back(std::make_unique<DeviceSlot>(device, ports_.timers));
  }
  for (ModelEntry& entry : catalog) AddModel(std::move(entry));
  state_.default_model = options_.default_model;
  ChooseDefault();
  state_.started_at = Now();
}

Router::Impl::~Impl() = default;

ModelRecord& Router::Impl::AddModel(ModelEntry entry) {
  const std::string name = entry.model.name();
  auto model = std::make_unique<ModelRecord>(std::move(entry), ports_.timers);
  ModelRecord& added = *model;
  state_.models[name] = std::move(model);
  state_.order.push_back(name);
  Install(added);
  return added;
}

// Takes over what `model.entry` says; the model has no worker, lease or master.
void Router::Impl::Install(ModelRecord& model) {
  model.plan = model.entry.plan;
  model.misfit = absl::OkStatus();
  model.needs = NeedsOf(model.plan);
  model.host = HostShareOf(model.needs.image, options_.host_budget_bytes).value_or(HostShare{});
  model.pinned = model.entry.model.pinned();
  model.device = IndexOf(model.entry.model.device());
  model.failures = FailureLog{};
  model.probe.Trust();
  const bool usable = model.entry.problem.ok();
  model.launch_wanted = usable;
  model.load_retry.Clear();
  model.told_no_room = false;
  model.master.prefetch = usable && options_.prefetch_at_start;
  model.last_use = Now();
}

// The first device, if there is none of this name.
size_t Router::Impl::IndexOf(const std::string& device) const {
  for (size_t i = 0; i < options_.devices.size(); ++i) {
    if (options_.devices[i].name == device) return i;
  }
  return 0;
}

// The one that it is while it stays, whatever becomes of it. Else the first, rather one that can be
// served, and of those a pinned one. One that was removed takes no requests while it ends.
void Router::Impl::ChooseDefault() {
  const ModelRecord* chosen = Find(state_.default_model);
  if (chosen != nullptr && chosen->leave != Leave::kRemove) return;
  chosen = nullptr;
  const auto rank = [](const ModelRecord& model) {  // as it is going to be
    if (const auto& next = model.replacement) {
      return std::make_pair(next->problem.ok(), next->model.pinned());
    }
    return std::make_pair(model.entry.problem.ok() && model.misfit.ok(), model.pinned);
  };
  for (const std::string& name : state_.order) {
    const ModelRecord* model = Find(name);
    if (model->leave == Leave::kRemove) continue;
    if (chosen == nullptr || rank(*model) > rank(*chosen)) chosen = model;
  }
  state_.default_model = chosen == nullptr ? "" : chosen->name();
}

void Router::Impl::Start() {
  if (!state_.default_model.empty()) LogInfo("default model: ", state_.default_model);
  dirty_ = true;
  Pump();
}

void Router::Impl::Arm(Alarm& alarm, Nanos delay, std::function<void()> fire) {
  alarm.Set(delay, [this, fire = std::move(fire)] {
    dirty_ = true;
    fire();
    Pump();
  });
}

// What is not so any more when it judges was only late: see kSecondLook.
void Router::Impl::ArmTwice(Alarm& alarm, Nanos delay, std::function<void()> judge) {
  Arm(alarm, delay - kSecondLook, [this, &alarm, judge = std::move(judge)] {
    AwaitEcho(alarm, [this, &alarm, judge] { Arm(alarm, kSecondLook, judge); });
  });
}

// Between two looks: `look_again` arms the second. While nobody can be heard there is none.
void Router::Impl::AwaitEcho(Alarm& alarm, std::function<void()> look_again) {
  ports_.echo(alarm.Await(std::move(look_again)));
}

ModelRecord* Router::Impl::Find(const std::string& name) {
  auto it = state_.models.find(name);
  return it == state_.models.end() ? nullptr : it->second.get();
}
const ModelRecord* Router::Impl::Find(const std::string& name) const {
  auto it = state_.models.find(name);
  return it == state_.models.end() ? nullptr : it->second.get();
}

absl::StatusOr<ModelRecord*> Router::Impl::Resolve(const std::string& name) {
  if (state_.draining) return absl::UnavailableError("the supervisor is shutting down");
  return Lookup(name);
}

absl::StatusOr<ModelRecord*> Router::Impl::Lookup(const std::string& name) const {
  const auto found = state_.models.find(name.empty() ? state_.default_model : name);
  ModelRecord* model = found == state_.models.end() ? nullptr : found->second.get();
  if (model == nullptr || model->leave == Leave::kRemove) {
    return absl::NotFoundError(name.empty()
                                   ? std::string("there is no default model")
                                   : absl::StrCat("there is no model named ", ShownName(name)));
  }
  return model;
}

// For what an operator must name, so that a forgotten argument does not hit the default model.
absl::StatusOr<ModelRecord*> Router::Impl::ResolveNamed(const std::string& name) {
  if (name.empty()) {
    return absl::InvalidArgumentError(
        "the model is not named, and there is no default here: set `model`");
  }
  return Resolve(name);
}

// Why the model takes no requests now, if so.
absl::Status Router::Impl::Refusal(const ModelRecord& model) const {
  if (model.worker.quarantined) {
    return absl::UnavailableError(
        absl::StrCat("the worker of ", model.name(), " does not end; its memory is not back"));
  }
  // A new configuration is on its way in; it may be a good one.
  if (model.leave == Leave::kReplace) return absl::OkStatus();
  if (!model.entry.problem.ok()) return ProblemOf(model.entry);
  if (!model.misfit.ok()) return model.misfit;
  return model.failures.failed ? GivenUp(model) : absl::OkStatus();
}

// The same for a request that named `asked`. Without a name it does not know whom it has met.
absl::Status Router::Impl::RefusalOf(const std::string& asked, const ModelRecord& model) const {
  const absl::Status refusal = Refusal(model);
  if (refusal.ok() || !asked.empty()) return refusal;
  return Reworded(refusal, refusal.code(),
                  absl::StrCat("no model is named, and ", model.name(),
                               ", the default until a `switchyard switch`, takes no requests: ",
                               refusal.message()));
}

// Notes a use: resets what counts as least recently used and idle.
void Router::Impl::Touch(ModelRecord& model) {
  model.last_use = Now();
  ArmIdle(model);
}

void Router::Impl::ArmIdle(ModelRecord& model) {
  const auto& timeout = model.entry.model.idle_timeout();
  const Nanos idle = timeout.seconds() * kSecond + timeout.nanos();
  model.idle.Clear();
  if (!model.entry.model.has_idle_timeout() || idle <= 0) return;
  const std::string name = model.name();
  Arm(model.idle, idle, [this, name] {
    if (ModelRecord* m = Find(name)) Sleep(*m);
  });
}

// Starts whatever has become possible, until nothing more does.
void Router::Impl::Pump() {
  if (pumping_) return;
  pumping_ = true;
  const bool decides = dirty_;  // most messages are tokens, and change no decision
  // Each round may make another one useful (a refused request frees a place); rounds end because
  // every one of them uses up what it acts on. The bound only keeps a mistake of ours from
  // spinning.
  for (int round = 0; dirty_ && round < 100; ++round) {
    dirty_ = dirty_soon_ = false;
    status_changed_ = true;
    std::vector<std::string> leaving;  // they may be gone after that
    for (const auto& [name, model] : state_.models) {
      if (model->leave != Leave::kNo) leaving.push_back(name);
    }
    for (const std::string& name : leaving) PumpLeave(name);
    for (const std::string& name : state_.order) PumpWorker(*Find(name));
    PumpMasters();
    for (size_t i = 0; i < state_.devices.size(); ++i) PumpDevice(i);
    PumpSwitches();
  }
  if (decides) {
    for (const auto& [name, model] : state_.models) PumpProbe(*model);
  }
  pumping_ = false;
  if (decides) PumpHealth();
  PumpWatchers();
  if (decides) PumpShutdown();
}

void Router::Impl::Drain(Nanos grace, std::function<void()> done) {
  if (state_.draining) {
    if (!state_.ending) EndEverything();
    Pump();
    return;
  }
  state_.draining = true;
  state_.drained = std::move(done);
  LogInfo("draining: ", state_.requests.size(), " requests in flight");
  const absl::Status why = absl::UnavailableError("the supervisor is shutting down");
  while (!state_.switches.empty()) FailSwitch(state_.switches.front().model, why);
  for (const auto& [name, model] : state_.models) {
    FinishPrefetches(*model, why);
    model->launch_wanted = false;
    model->master.prefetch = false;
  }
  dirty_ = true;
  Arm(state_.shutdown_alarm, grace, [this] {
    if (!state_.ending) EndEverything();
  });
  Pump();
}

void Router::Impl::EndEverything() {
  state_.ending = true;
  Arm(state_.shutdown_alarm, kShutdownPatience + kShutdownReaping,
      [this] { state_.end_overdue = true; });
  std::vector<RequestId> ids;
  for (const auto& [id, request] : state_.requests) ids.push_back(id);
  for (RequestId id : ids) {
    BreakOff(*FindRequest(id),
             absl::UnavailableError("the supervisor is shutting down: ask again when it is back"),
             true);
  }
  for (const auto& [name, model] : state_.models) {
    EndCalls(*model, absl::UnavailableError("the supervisor is shutting down"));
    model->worker.relaunch.Clear();
    if (model->worker.phase != Phase::kNone && model->worker.phase != Phase::kEnding) {
      EndWorker(*model, kShutdownPatience);
    } else if (model->worker.phase == Phase::kEnding) {
      model->worker.port->Terminate(true);
    }
  }
}

// Whether the end waits for the worker: not for one that cannot be reaped. It dies with us, as soon
// as the kernel lets go of it.
bool Router::Impl::HoldsUpTheEnd(const ModelRecord& model) const {
  const WorkerSlot& worker = model.worker;
  return worker.phase != Phase::kNone && !worker.quarantined && !state_.end_overdue;
}

// Draining: nothing in flight ends it early; when every worker is gone, says so.
void Router::Impl::PumpShutdown() {
  if (!state_.draining || !state_.drained) return;
  if (!state_.ending && state_.requests.empty() && state_.calls.empty()) EndEverything();
  if (!state_.ending) return;
  for (const auto& [name, model] : state_.models) {
    if (HoldsUpTheEnd(*model)) return;
  }
  for (const auto& [name, model] : state_.models) {
    if (model->worker.phase != Phase::kNone) {
      LogWarning("the worker of ", name, " (pid ", model->worker.port->pid(),
                 ") was killed and does not end: it is left to itself");
    }
    LeaveMaster(*model);
    for (auto& [id, reply] : model->unload_replies) reply(v1::UnloadReply());
    model->unload_replies.clear();
  }
  for (const auto& watcher : state_.watchers) {
    watcher->sink->Finish(absl::UnavailableError("the supervisor is shutting down"));
  }
  state_.watchers.clear();
  auto done = std::move(state_.drained);
  state_.drained = nullptr;
  if (done) done();  // may end the router: nothing after this
}

Router::Router(RouterOptions options, std::vector<ModelEntry> catalog, Ports ports)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(catalog), ports)) {}
Router::~Router() = default;

void Router::Adopt(const std::string& model, uint64_t master_id) { impl_->Adopt(model, master_id); }
void Router::Start() { impl_->Start(); }
void Router::Drain(Nanos grace, std::function<void()> done) {
  impl_->Drain(grace, std::move(done));
}
RequestId Router::Generate(v1::GenerateRequest request, Nanos deadline,
                           std::shared_ptr<GenerateSink> sink) {
  return impl_->Generate(std::move(request), deadline, std::move(sink));
}
void Router::CancelRequest(RequestId id) { impl_->CancelRequest(id); }
void Router::OnSinkDrained(RequestId id) { impl_->OnSinkDrained(id); }
v1::ListModelsReply Router::ListModels() const { return impl_->ListModels(); }
absl::StatusOr<v1::ModelStatus> Router::GetModel(const std::string& name) const {
  return impl_->GetModel(name);
}
RequestId Router::Switch(const std::string& model, bool make_default,
                         std::shared_ptr<SwitchSink> sink) {
  const RequestId id = impl_->NextId();
  impl_->Switch(id, model, make_default, std::move(sink));
  return id;
}
RequestId Router::Unload(const std::string& model, Reply<v1::UnloadReply> reply) {
  const RequestId id = impl_->NextId();
  impl_->Unload(id, model, std::move(reply));
  return id;
}
RequestId Router::Prefetch(const std::string& model, Reply<v1::PrefetchReply> reply) {
  const RequestId id = impl_->NextId();
  impl_->Prefetch(id, model, std::move(reply));
  return id;
}
absl::Status Router::Pin(const std::string& model, bool pinned) {
  return impl_->Pin(model, pinned);
}
v1::Status Router::GetStatus() const { return impl_->GetStatus(); }
void Router::WatchStatus(uint32_t min_interval_ms, std::shared_ptr<StatusSink> sink) {
  impl_->WatchStatus(min_interval_ms, std::move(sink));
}
void Router::StopWatching(const StatusSink* sink) { impl_->StopWatching(sink); }
void Router::NoteReload(const absl::Status& ended) { impl_->NoteReload(ended); }
std::vector<std::string> Router::TryFailedAgain() { return impl_->TryFailedAgain(); }
absl::StatusOr<v1::ReloadConfigReply> Router::Reload(std::vector<ModelEntry> catalog,
                                                     const std::vector<Device>& devices) {
  return impl_->Reload(std::move(catalog), devices);
}
void Router::OnWorkerMessage(Incarnation worker, const v1::FromWorker& message) {
  impl_->OnWorkerMessage(worker, message);
}
void Router::OnWorkerGone(Incarnation worker, const WorkerExit& exit) {
  impl_->OnWorkerGone(worker, exit);
}
void Router::OnMasterFreed(uint64_t master_id) { impl_->OnMasterFreed(master_id); }
void Router::OnForeignBytes(const std::string& device, uint64_t bytes) {
  impl_->OnForeignBytes(device, bytes);
}
void Router::OnDeviceSample(DeviceSample sample) { impl_->OnDeviceSample(std::move(sample)); }
void Router::OnForeignBetween(const std::string& device, uint64_t least, uint64_t most) {
  impl_->OnForeignBetween(device, least, most);
}

OurBytes Router::OursOn(const std::string& device) const { return impl_->OursOn(device); }

std::vector<Standing> Router::Standings() const { return impl_->Standings(); }
std::string Router::Stuck() const { return impl_->Stuck(); }

template <typename Command, typename Request, typename Done, typename T>
RequestId Router::Impl::Ask(Command* (v1::ToWorker::*command)(), Request request,
                            const Done& (v1::FromWorker::*answer)() const, Reply<T> reply) {
  const uint64_t id = NextId();
  const std::string model = request.model();
  v1::ToWorker message;
  (message.*command)()->set_request_id(id);
  *(message.*command)()->mutable_request() = std::move(request);
  StartCall(id, model, std::move(message),
            [answer, reply = std::move(reply)](absl::Status status, const v1::FromWorker* from) {
              if (!status.ok()) return reply(std::move(status));
              reply((from->*answer)().reply());
            });
  return id;
}

RequestId Router::Tokenize(v1::TokenizeRequest request, Reply<v1::TokenizeReply> reply) {
  return impl_->Ask(&v1::ToWorker::mutable_tokenize, std::move(request), &v1::FromWorker::tokenize,
                    std::move(reply));
}
RequestId Router::Detokenize(v1::DetokenizeRequest request, Reply<v1::DetokenizeReply> reply) {
  return impl_->Ask(&v1::ToWorker::mutable_detokenize, std::move(request),
                    &v1::FromWorker::detokenize, std::move(reply));
}

}  // namespace switchyard::supervisor
