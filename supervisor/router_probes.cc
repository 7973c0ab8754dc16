// Whether work gets done: probes of resident models, and what is known to be stuck.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "supervisor/backoff.h"
#include "supervisor/router_impl.h"
#include "supervisor/signs_of_life.h"
#include "supervisor/turns.h"

namespace switchyard::supervisor {
namespace {

// For the answer to one whose time has been used up by others before it. The shortest turn has room
// for that, or two workers that run no step and take such turns would never be found out.
constexpr Nanos kLastChance = kLeastTurn / 2;
constexpr Nanos kLeastWait = 100 * kMillisecond;  // for the answer to any one probe
// A probe is judged in two looks, as a heartbeat is: what came while the supervisor itself stood
// still is read between the two.
constexpr Nanos kLastLook = kSecond / 2;
constexpr Nanos kSuspendedRetry = 60 * kSecond;  // where there is no interval
constexpr Nanos kOverdue = 5 * kSecond;          // an alarm that is later than this was lost

// One token, for whose sake nobody else waits.
v1::GenerateRequest ProbeRequest(const std::string& model) {
  v1::GenerateRequest request;
  request.set_model(model);
  request.set_text("Hello");
  request.set_priority(-100);
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stop()->set_max_tokens(1);
  request.mutable_stop()->set_ignore_eos(true);
  return request;
}

}  // namespace

// Only where nothing is in motion: what shrinks must not have to wait for a probe. One that a
// client's damage asks for has nothing to do with an interval.
bool Router::Impl::MayProbe(const ModelRecord& model) const {
  return (options_.probe_interval > 0 || model.probe.wanted) && !state_.draining && Ready(model) &&
         model.leave == Leave::kNo && model.lease.motion == Motion::kRest && Resident(model);
}

// Whether the worker has been told to run no steps for some sequence: what it keeps from others, a
// place in the batch or a lease, says nothing of the worker then.
bool Router::Impl::Suspends(const ModelRecord& model) const {
  return std::any_of(model.requests.begin(), model.requests.end(),
                     [this](RequestId id) { return state_.requests.at(id)->suspended; });
}

// A new worker, good weights, and it will not be probed: its model is not resident and need not
// become so, or finds others at work for so long that only a request would bring it in.
bool Router::Impl::NothingAgainst(const ModelRecord& model) const {
  if (!Ready(model) || model.probe.damaged) return false;
  if (Resident(model)) return options_.probe_interval == 0;
  return !WantsResidency(model) || Now() - model.worker.ready_at >= options_.probe_interval;
}

// Whether its worker has run a token, or need not.
bool Router::Impl::Proved(const ModelRecord& model) const {
  return options_.probe_interval == 0 || model.probe.proved_at > model.worker.ready_at;
}

void Router::Impl::PumpProbe(ModelRecord& model) {
  ProbeSlot& probe = model.probe;
  if (NothingAgainst(model)) probe.doubt.clear();
  if (!Ready(model)) probe.wanted = false;
  const bool may = MayProbe(model);
  probe.unproved.Could(may, Now());
  if (!Ready(model)) {
    probe.unproved.Reset(Now());
    probe.unanswered = 0;
  }
  if (!may) {
    StopProbe(model);
    if (probe.doubt.empty() || probe.damaged || !Ready(model) || Resident(model)) return;
    return Arm(probe.alarm, model.worker.ready_at + options_.probe_interval - Now(), [] {});
  }
  if (probe.id != 0) return;
  const Nanos after = ProbeAfter(options_.probe_interval, BackoffJitter(model.name(), probe.sent));
  const bool at_once = probe.wanted || !probe.doubt.empty() ||
                       (options_.prove_pinned && model.pinned && !Proved(model));
  const Nanos left = at_once ? 0 : after - probe.unproved.Spent(Now());
  const Nanos due = std::max(probe.not_before, Now() + left);
  if (due <= Now()) return SendProbe(model);
  if (probe.alarm.armed() && probe.alarm_at <= due) return;  // it looks again by itself
  probe.alarm_at = due;
  Arm(probe.alarm, due - Now(), [] {});
}

void Router::Impl::SendProbe(ModelRecord& model) {
  ProbeSlot& probe = model.probe;
  ++probe.sent;
  if (Suspends(model)) {
    probe.not_before =
        Now() + (options_.probe_interval > 0 ? options_.probe_interval : kSuspendedRetry);
    return PumpProbe(model);
  }
  probe.id = NextId();
  v1::ToWorker message;
  message.mutable_submit()->set_request_id(probe.id);
  *message.mutable_submit()->mutable_request() = ProbeRequest(model.name());
  Send(model, std::move(message));
  probe.accepted = false;
  WatchProbe(model);
}

// The worker is sent a request or a call.
void Router::Impl::NoteUnseen(ModelRecord& model, uint64_t id, uint64_t bytes) {
  model.worker.looks.insert(id, bytes, Now());
  WatchLooks(model);
}

// Whoever asks has no deadline of ours for this, and only resident models are probed: the worker is
// judged by what it has been sent first, resident or not. That it looks at what came later does not
// help whoever waits for that.
void Router::Impl::WatchLooks(ModelRecord& model) {
  Alarm& watch = model.worker.look_watch;
  if (watch.armed()) return;  // it looks again by itself
  const Nanos due = model.worker.looks.first_since() + kLongestLook;
  ArmTwice(watch, due - Now(), [this, name = model.name()] {
    ModelRecord& late = *Find(name);
    if (!Ready(late) || late.worker.looks.empty()) return;
    if (Now() - late.worker.looks.first_since() < kLongestLook) return WatchLooks(late);
    KillUnhealthy(late, absl::StrCat("hung: for ", kLongestLook / kSecond,
                                     " s it has not looked at what it was asked first"));
  });
}

// The worker has looked at a request or a call, and may have room for another one; or it tells the
// end of one that it had looked at long before.
void Router::Impl::NoteLook(ModelRecord& model, uint64_t id) {
  if (!model.worker.looks.erase(id, Now()) && id != model.probe.id) return;
  model.worker.looked_at = Now();
  SendUnsent(model);
}

// Whether it may still stand behind what clients have asked: the worker has not said that it has
// looked at it, but looks at others. If it does not, WatchLooks ends it.
bool Router::Impl::QueuesForALook(const ModelRecord& model) const {
  if (model.probe.accepted) return false;
  return model.worker.looked_at > model.probe.watched_at || !model.worker.looks.empty();
}

// It is judged when it, and those that were stopped before it, have had the time of a step: soon,
// if those had all of it.
void Router::Impl::WatchProbe(ModelRecord& model) {
  ProbeSlot& probe = model.probe;
  const v1::Heartbeat& beat = model.worker.heartbeat;
  if (probe.unanswered == 0) probe.steps = beat.steps();
  probe.watched_at = Now();
  const Nanos longest = LongestStep(beat.step_predicted_ns());
  const Nanos left =
      probe.unanswered >= longest ? kLastChance : std::max(longest - probe.unanswered, kLeastWait);
  const Nanos last = std::min(kLastLook, left / 2);
  LookAtProbe(model, left - last, last);
}

// After `delay`, and if need be once more after `again`; 0: it is the last time.
void Router::Impl::LookAtProbe(ModelRecord& model, Nanos delay, Nanos again) {
  model.probe.alarm_at = Now() + delay;
  Arm(model.probe.alarm, delay, [this, name = model.name(), again] {
    ModelRecord& late = *Find(name);
    ProbeSlot& probe = late.probe;
    const v1::Heartbeat& beat = late.worker.heartbeat;
    if (probe.id == 0) return;
    if (!StandsStill(probe.steps, beat) || QueuesForALook(late)) {
      probe.unanswered = 0;
      return WatchProbe(late);
    }
    if (again > 0) {
      return AwaitEcho(probe.alarm, [this, name, again] { LookAtProbe(*Find(name), again, 0); });
    }
    KillUnhealthy(late, absl::StrCat("hung: a self-probe had no answer and no step ended for ",
                                     LongestStep(beat.step_predicted_ns()) / kSecond, " s"));
  });
}

// It has been looked at: its time begins.
void Router::Impl::OnProbeAccepted(ModelRecord& model) {
  model.probe.accepted = true;
  WatchProbe(model);
}

// It ends without having said anything.
void Router::Impl::StopProbe(ModelRecord& model) {
  ProbeSlot& probe = model.probe;
  probe.alarm.Clear();
  const RequestId id = std::exchange(probe.id, 0);
  if (id == 0 || !Ready(model)) return;
  if (!QueuesForALook(model)) probe.unanswered += Now() - probe.watched_at;
  v1::ToWorker message;
  message.mutable_cancel()->set_request_id(id);
  Send(model, std::move(message));
}

// A token of the model has come, for whomever. Clients' tokens end a probe, too: it may have to
// wait behind them for longer than it is given.
void Router::Impl::NoteProof(ModelRecord& model) {
  ProbeSlot& probe = model.probe;
  probe.proved_at = Now();
  if (probe.id != 0) {
    StopProbe(model);
    dirty_ = true;
  }
  probe.unproved.Reset(Now());
  probe.unanswered = 0;
  if (!probe.doubt.empty()) {
    LogInfo(model.name(), " works again");
    dirty_ = true;
  }
  probe.Trust();
}

void Router::Impl::OnProbeEvent(ModelRecord& model, const v1::GenerateEvent& event) {
  if (event.ids_size() == 0 && !event.has_finish()) return;
  if (event.has_finish()) model.probe.id = 0;  // nothing is left to cancel
  NoteProof(model);
  dirty_ = true;
}

void Router::Impl::OnProbeRejected(ModelRecord& model, const v1::Rejected& rejected) {
  model.probe.id = 0;
  dirty_ = true;
  // A model whose context has no room for the probe, say: it answers, and more cannot be asked.
  if (rejected.code() == static_cast<int>(absl::StatusCode::kInvalidArgument)) {
    return NoteProof(model);
  }
  if (IsDamage(rejected)) model.probe.damaged = Ready(model);
  KillUnhealthy(model, absl::StrCat("its self-probe failed: ", rejected.message()));
}

// A client's logits were not numbers, perhaps by one token's weights; or its step failed, perhaps
// as all do from now on, on a GPU whose context is ruined. The probe tells.
void Router::Impl::NoteFault(ModelRecord& model, const std::string& message) {
  if (!std::exchange(model.probe.wanted, true)) {
    LogWarning(model.name(), " is probed, since a request failed: ", message);
  }
  dirty_ = true;
}

// It is alive, but does not do its work: not to be counted on until it has proved the contrary.
void Router::Impl::KillUnhealthy(ModelRecord& model, const std::string& reason) {
  if (Ready(model)) model.probe.doubt = reason;
  KillWorker(model, reason);
}

std::string Router::Impl::Stuck() const {
  for (const auto& [name, model] : state_.models) {
    const ProbeSlot& probe = model->probe;
    if (probe.id != 0 && Now() > probe.alarm_at + kOverdue) {
      return absl::StrCat("nobody has judged the self-probe of ", name);
    }
    const WaitClock& clock = model->clock;
    if (clock.alarm.armed() && Now() > clock.alarm_at + kOverdue) {
      return absl::StrCat("nobody has told the requests of ", name, " that their time is over");
    }
  }
  return "";
}

}  // namespace switchyard::supervisor
