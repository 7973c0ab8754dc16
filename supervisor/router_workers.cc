// Worker processes as a table of phases, each with a deadline: none -> starting -> ready -> ending.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "supervisor/backoff.h"
#include "supervisor/probe.h"
#include "supervisor/retry_after.h"
#include "supervisor/router_impl.h"
#include "supervisor/signs_of_life.h"
#include "supervisor/wait_status.h"

namespace switchyard::supervisor {
namespace {

constexpr Nanos kReapTimeout = 10 * kSecond;  // after SIGKILL; then the lease is in quarantine

// Why a model's requests end with its worker, which was told to end. `hopeless`: why it does not
// come back, if so.
std::string WhyEnded(const std::string& model, Leave leave, const absl::Status& hopeless) {
  if (leave == Leave::kRemove) return absl::StrCat(model, " was removed");
  if (leave == Leave::kReplace) {
    if (hopeless.ok()) return absl::StrCat(model, " was changed by a reload: ask again");
    return absl::StrCat(model, " cannot be served any more, since a reload: ", hopeless.message());
  }
  if (hopeless.ok()) return absl::StrCat(model, " was unloaded: ask again");
  return absl::StrCat(model, " was unloaded, and cannot be loaded again: ", hopeless.message());
}

}  // namespace

void Router::Impl::Send(ModelRecord& model, v1::ToWorker message) {
  model.worker.port->Send(std::move(message));
}

bool Router::Impl::WantsWorker(const ModelRecord& model) const {
  return model.launch_wanted || WantsResidency(model) || !model.requests.empty() ||
         !model.calls.empty() || !model.master.waiting.empty() || FindSwitch(model.name());
}

void Router::Impl::PumpWorker(ModelRecord& model) {
  WorkerSlot& worker = model.worker;
  if (worker.phase == Phase::kReady) return SendUnsent(model);
  if (worker.phase != Phase::kNone || state_.ending || model.leave != Leave::kNo) return;
  if (!model.entry.problem.ok()) return;
  // A failed model is probed, wanted or not: it refuses everyone who could want it.
  if (model.failures.failed ? state_.draining : !WantsWorker(model)) return;
  if (Now() >= model.failures.not_before) return Launch(model);
  if (worker.relaunch.armed()) return;
  Arm(worker.relaunch, model.failures.not_before - Now(), [] {});
}

void Router::Impl::Launch(ModelRecord& model) {
  WorkerSlot& worker = model.worker;
  model.launch_wanted = false;
  worker.relaunch.Clear();
  LaunchSpec spec;
  spec.model = model.entry.model;
  spec.plan = model.entry.plan;
  spec.device = DeviceOf(model).ledger.device().name;
  spec.cache_dir = options_.cache_dir;
  spec.cache_bytes = options_.cache_bytes;
  spec.threads = options_.worker_threads;
  spec.incarnation = state_.next_incarnation++;
  absl::StatusOr<std::unique_ptr<WorkerPort>> port = ports_.launcher->Launch(spec);
  if (IsStarved(port.status())) return LaunchStarved(model, port.status());
  if (!port.ok()) {
    OnFailure(model, absl::StrCat("cannot be started: ", port.status().message()), 0);
    return;
  }
  model.failures.starved = 0;
  worker.port = *std::move(port);
  worker.id = spec.incarnation;
  worker.phase = Phase::kStarting;
  worker.launched_at = Now();
  worker.planned_end = false;
  worker.spoke = worker.start_overdue = false;
  worker.kill_reason.clear();
  worker.looks.clear();
  worker.look_watch.Clear();
  worker.heartbeat.Clear();
  worker.step_watch = StepWatch();
  worker.running = worker.paused = 0;
  worker.host_kv = 0;
  worker.starved = false;
  state_.incarnations[worker.id] = model.name();
  WatchSilence(model);
}

void Router::Impl::OnWorkerMessage(Incarnation id, const v1::FromWorker& message) {
  auto it = state_.incarnations.find(id);
  if (it == state_.incarnations.end()) return;
  ModelRecord& model = *Find(it->second);
  model.worker.spoke = true;
  model.failures.silent_starts = 0;
  switch (message.message_case()) {
    case v1::FromWorker::kHello:
      OnHello(model, message.hello());
      break;
    case v1::FromWorker::kMaster:
      OnMaster(model, message.master());
      break;
    case v1::FromWorker::kLease:
      OnLease(model, message.lease());
      break;
    case v1::FromWorker::kStep:
      OnSteps(model, message.step());
      break;
    case v1::FromWorker::kAccepted:
      OnAccepted(model, message.accepted());
      break;
    case v1::FromWorker::kRejected:
      OnRejected(model, message.rejected());
      break;
    case v1::FromWorker::kTokenize:
      OnCallDone(model, message.tokenize().request_id(), message.tokenize().code(),
                 message.tokenize().message(), message);
      break;
    case v1::FromWorker::kDetokenize:
      OnCallDone(model, message.detokenize().request_id(), message.detokenize().code(),
                 message.detokenize().message(), message);
      break;
    case v1::FromWorker::kHeartbeat:
      OnHeartbeat(model, message.heartbeat());
      break;
    case v1::FromWorker::MESSAGE_NOT_SET:
      break;
  }
  Pump();
}

void Router::Impl::OnHello(ModelRecord& model, const v1::Hello& hello) {
  WorkerSlot& worker = model.worker;
  if (worker.phase != Phase::kStarting) return;
  // The master and what is told of the model rest on the image of the catalog's plan; the other
  // parts the worker may know better by now. It has no lease yet, so they may change. If the device
  // is too small for them, no other worker would know better: this one stays, and waits.
  if (hello.plan().image_bytes() != model.needs.image ||
      hello.plan().chunk_bytes() != model.entry.plan.chunk_bytes()) {
    return KillWorker(model,
                      "its image is not the one that was planned: the checkpoint has "
                      "changed, reload the configuration");
  }
  model.plan = hello.plan();
  model.needs = NeedsOf(model.plan);
  NoteFit(model);
  worker.image_key = hello.plan().image_key();
  worker.phase = Phase::kReady;
  worker.ready_at = Now();
  // A probe that got this far: the model serves again, but the next failure ends that. That it can
  // be loaded is still to be seen.
  if (!model.failures.Unloaded()) model.failures.stands = false;
  if (model.failures.loads == 0) model.failures.failed = false;
  WatchSilence(model);
  AttachMaster(model);
  if (model.failures.failed) BeginTrial(model);
  dirty_ = true;
}

void Router::Impl::OnHeartbeat(ModelRecord& model, const v1::Heartbeat& heartbeat) {
  WorkerSlot& worker = model.worker;
  if (heartbeat.steps() != worker.heartbeat.steps()) worker.stepped_at = Now();
  worker.heartbeat = heartbeat;
  status_changed_ = true;
  if (worker.phase == Phase::kStarting) return OnSignOfStart(model);
  if (worker.phase != Phase::kReady) return;
  NoteBusy(model, heartbeat.busy_ns());
  worker.starved = heartbeat.waiting() > 0 && Resident(model);
  dirty_ |= worker.starved || worker.running != heartbeat.running() ||
            worker.paused != heartbeat.paused();
  worker.running = heartbeat.running();
  worker.paused = heartbeat.paused();
  // A step may wait for weights that come at a disk's rate; their growth has a watch of its own.
  // For a pool that grows it does not wait.
  const LeaseSlot& lease = model.lease;
  const Nanos at_rest = lease.brings_weights ? 0 : Now() - lease.weights_at;
  const uint64_t counts = std::min(heartbeat.step_running_ns(), static_cast<uint64_t>(at_rest));
  if (worker.step_watch.Hangs(heartbeat, static_cast<Nanos>(counts), Now())) {
    KillUnhealthy(model, absl::StrCat("hung: a step has run for ",
                                      heartbeat.step_running_ns() / kMillisecond, " ms, predicted ",
                                      heartbeat.step_predicted_ns() / kMillisecond, " ms"));
    return;
  }
  WatchSilence(model);
}

// It lives, and opens its device or its checkpoint: that may take its time, but has an end.
void Router::Impl::OnSignOfStart(ModelRecord& model) {
  WorkerSlot& worker = model.worker;
  if (Now() - worker.launched_at < kLongestStart) return WatchSilence(model);
  if (std::exchange(worker.start_overdue, true)) return;
  const std::string name = model.name();
  Arm(worker.watch, kSecondLook, [this, name] {
    KillWorker(*Find(name), absl::StrCat("did not start within ", kLongestStart / kSecond, " s"));
  });
}

void Router::Impl::WatchSilence(ModelRecord& model) {
  const std::string name = model.name();
  const Nanos longest = LongestSilence(model.worker.spoke, model.failures.silent_starts);
  ArmTwice(model.worker.watch, longest, [this, name, longest] {
    ModelRecord& silent = *Find(name);
    const bool spoke = silent.worker.spoke;
    if (!spoke) ++silent.failures.silent_starts;
    KillUnhealthy(silent, absl::StrCat(spoke ? "hung: no heartbeat for "
                                             : "no sign of life since it was started, for ",
                                       longest / kSecond, " s"));
  });
}

// As planned: it is asked, and after `patience` made to.
void Router::Impl::EndWorker(ModelRecord& model, Nanos patience) {
  WorkerSlot& worker = model.worker;
  if (worker.phase == Phase::kNone || worker.phase == Phase::kEnding) return;
  const bool listens = worker.phase == Phase::kReady;
  worker.phase = Phase::kEnding;
  NoteGone(model);
  worker.planned_end = true;
  if (listens) {
    v1::ToWorker message;
    message.mutable_shutdown();
    Send(model, std::move(message));
  } else {
    worker.port->Terminate(false);
  }
  const std::string name = model.name();
  Arm(worker.watch, patience, [this, name] {
    Find(name)->worker.port->Terminate(true);
    AwaitReaping(*Find(name));
  });
  dirty_ = true;
}

void Router::Impl::KillWorker(ModelRecord& model, const std::string& reason) {
  WorkerSlot& worker = model.worker;
  if (worker.phase == Phase::kNone || worker.phase == Phase::kEnding) return;
  LogWarning("worker of ", model.name(), ": ", reason);
  worker.phase = Phase::kEnding;
  NoteGone(model);
  worker.kill_reason = reason;
  worker.port->Terminate(true);
  AwaitReaping(model);
  dirty_ = true;
}

void Router::Impl::AwaitReaping(ModelRecord& model) {
  const std::string name = model.name();
  ArmTwice(model.worker.watch, kReapTimeout, [this, name] {
    ModelRecord& stuck = *Find(name);
    stuck.worker.quarantined = true;
    DeviceOf(stuck).ledger.Quarantine(name);
    LogError("worker of ", name, " (pid ", stuck.worker.port->pid(),
             ") does not end; its lease stays charged");
    const absl::Status why = Refusal(stuck);
    RequestsAfterLoss(stuck, stuck.worker.planned_end, "cannot be ended");
    FailDemand(stuck, why);
    FinishPrefetches(stuck, why);
    EndWaiting(stuck, why);
    EndCalls(stuck, why);
    for (auto& [id, reply] : stuck.unload_replies) reply(why);
    stuck.unload_replies.clear();
  });
}

void Router::Impl::OnWorkerGone(Incarnation id, const WorkerExit& exit) {
  auto it = state_.incarnations.find(id);
  if (it == state_.incarnations.end()) return;
  ModelRecord& model = *Find(it->second);
  state_.incarnations.erase(it);
  WorkerSlot& worker = model.worker;
  const bool planned = worker.planned_end;
  std::string what = DescribeEnd(exit.wait_status, exit.last_lines);
  if (!worker.kill_reason.empty()) what = absl::StrCat(worker.kill_reason, "; it ", what);
  const Nanos lived = Now() - worker.launched_at;
  worker.phase = Phase::kNone;
  NoteGone(model);
  worker.port.reset();
  worker.watch.Clear();
  worker.quarantined = false;
  worker.running = worker.paused = 0;
  // Its memory is back: whatever is not free yet, the next sample counts as foreign.
  DeviceOf(model).ledger.Drop(model.name());
  if (ports_.sample_devices) ports_.sample_devices();
  state_.host.SetPaused(model.name(), 0);
  model.lease.drain.Clear();
  model.lease.watch.Clear();
  model.lease.motion = Motion::kRest;
  model.lease.ends_worker = model.lease.pausing = model.lease.pause_wanted = false;
  model.lease.reserved = false;
  model.master.sent = model.master.attached = false;
  if (model.master.phase != MasterSlot::Phase::kComplete) DiscardMaster(model);
  model.master.watch.Clear();
  model.failures.trial = false;
  dirty_ = true;
  DeviceSlot& device = DeviceOf(model);
  if (device.swap && device.swap->model == model.name()) AbortSwap(device);
  if (!planned) FinishPrefetches(model, absl::UnavailableError(absl::StrCat("worker ", what)));
  RequestsAfterLoss(model, planned, what);
  CallsAfterLoss(model);
  if (!planned) {
    ++model.failures.restarts;
    OnFailure(model, what, lived);
  } else if (model.leave == Leave::kNo && !state_.draining) {
    model.launch_wanted = true;  // its fixed bytes are back; without a lease it costs none
  }
  Pump();
}

void Router::Impl::OnFailure(ModelRecord& model, const std::string& what, Nanos lived) {
  FailureLog& failures = model.failures;
  // A worker lives as long with damaged weights.
  failures.in_a_row = FailuresAfter(failures.in_a_row, model.probe.damaged ? 0 : lived);
  failures.delays = FailuresAfter(failures.delays, lived);
  failures.Note(what, Now());
  failures.not_before =
      Now() + BackoffDelay(failures.delays, BackoffJitter(model.name(), failures.restarts));
  // So that it stays warm, or that it is known what is wrong with it.
  model.launch_wanted = model.leave == Leave::kNo && !state_.draining;
  dirty_ = true;
  LogWarning("worker of ", model.name(), " ", what);
  // An operator's switch forgives one loss.
  if (SwitchOp* op = FindSwitch(model.name())) {
    if (op->retried) {
      FailSwitch(model.name(), absl::UnavailableError(absl::StrCat("the worker ", what)));
    } else {
      op->retried = true;
    }
  }
  // A model on its way out starts afresh, if at all.
  if (failures.Count() < kFailuresUntilFailed || model.leave != Leave::kNo) return;
  DiscardMaster(model);  // it may be what kills them
  GiveUp(model);
}

// It takes nothing any more, but for a probe every kProbeFailedEvery, until an operator asks again.
void Router::Impl::GiveUp(ModelRecord& model) {
  model.failures.failed = true;
  model.failures.not_before = Now() + kProbeFailedEvery;
  model.launch_wanted = false;
  const absl::Status why = Refusal(model);
  FailSwitch(model.name(), why);
  FinishPrefetches(model, why);
  // Also those that have begun to run while it was being loaded.
  const std::set<RequestId> ids = model.requests;
  for (const RequestId id : ids) BreakOff(*FindRequest(id), why, true);
  EndCalls(model, why);
  dirty_ = true;
}

// What a lost worker means for each request: who has output is told that there will be no more; who
// has none may try again; who has been sent nothing has lost nothing, and goes to the next worker,
// once: a request may be what kills it.
void Router::Impl::RequestsAfterLoss(ModelRecord& model, bool planned, const std::string& what) {
  const std::set<RequestId> ids = model.requests;
  // Of what it will be from now on: its device may have become too small.
  const absl::Status& hopeless = model.replacement ? model.replacement->problem : model.misfit;
  const std::string message =
      planned ? WhyEnded(model.name(), model.leave, hopeless)
              : absl::StrCat("the worker of ", model.name(), " was lost, ask again: ", what);
  for (RequestId id : ids) {
    Request& request = *FindRequest(id);
    if (request.stage == Stage::kUnsent) continue;
    if (request.has_tokens || request.has_start || request.resubmitted ||
        request.request.model().empty()) {
      const absl::Status why = absl::UnavailableError(message);
      BreakOff(request, planned ? why : WithRetryAfter(why, kLeastRetry), false);
    } else {
      request.resubmitted = !planned;
      EndSuspension(request);
      SetStage(model, request, Stage::kUnsent);
      TellWaiting(request);
    }
  }
}

void Router::Impl::CallsAfterLoss(ModelRecord& model) {
  const std::set<uint64_t> ids = model.calls;
  for (uint64_t id : ids) {
    Call& call = state_.calls.at(id);
    if (model.unsent_calls.count(id) > 0) continue;
    if (!call.resent) {
      call.resent = true;
      model.unsent_calls.insert(id);
      continue;
    }
    auto reply = std::move(call.reply);
    state_.calls.erase(id);
    model.calls.erase(id);
    reply(WithRetryAfter(absl::UnavailableError(
                             absl::StrCat("the worker of ", model.name(), " was lost, ask again")),
                         kLeastRetry),
          nullptr);
  }
}

}  // namespace switchyard::supervisor
