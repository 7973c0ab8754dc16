// Switch and Load: operators' wishes, and what they are told meanwhile.

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/utf8.h"
#include "supervisor/router_impl.h"

namespace switchyard::supervisor {

SwitchOp* Router::Impl::FindSwitch(const std::string& model) {
  for (SwitchOp& op : state_.switches) {
    if (op.model == model) return &op;
  }
  return nullptr;
}
const SwitchOp* Router::Impl::FindSwitch(const std::string& model) const {
  return const_cast<Impl*>(this)->FindSwitch(model);
}

void Router::Impl::Switch(RequestId id, const std::string& name, bool make_default,
                          std::shared_ptr<SwitchSink> sink) {
  absl::StatusOr<ModelRecord*> found = ResolveNamed(name);
  if (!found.ok()) return sink->Finish(found.status());
  ModelRecord& model = **found;
  // What had been given up is tried again, and a back-off is cut short.
  if (model.worker.phase == Phase::kNone || model.failures.failed || LoadsLater(model)) {
    model.failures.Forgive(Now());
    model.worker.relaunch.Clear();
  }
  if (absl::Status status = Refusal(model); !status.ok()) return sink->Finish(status);
  SwitchOp& op = QueueSwitch(model);
  if (op.last.phase() != v1::SWITCH_PHASE_UNSPECIFIED) sink->Write(op.last);
  if (make_default) op.default_order = state_.next_order++;
  op.asked = true;
  op.sinks[id] = std::move(sink);
  Pump();
}

// The model's place among the wishes: the one that it has, or a new one.
SwitchOp& Router::Impl::QueueSwitch(ModelRecord& model) {
  Touch(model);
  dirty_ = true;
  if (SwitchOp* op = FindSwitch(model.name())) return *op;
  SwitchOp& op = state_.switches.emplace_back();
  op.model = model.name();
  op.order = state_.next_order++;
  op.since = op.subphase_since = Now();
  return op;
}

void Router::Impl::PumpSwitches() {
  std::vector<std::string> ready;
  for (SwitchOp& op : state_.switches) {
    const ModelRecord& model = *Find(op.model);
    // What is streamed is only read on the way to the device, unless it has to be made first.
    op.filled_master |= model.master.phase == MasterSlot::Phase::kFilling &&
                        (!model.host.streamed || model.master.done > 0);
    // What comes in by a swap of its own FinishSwap tells: a worker holds memory for weights that
    // are still being copied into it.
    if (Resident(model) && model.leave == Leave::kNo && !ComesIn(model)) {
      ready.push_back(op.model);
    } else {
      Tell(op, EventOf(op));
    }
  }
  for (const std::string& name : ready) {
    Touch(*Find(name));
    ReadySwitch(name, /*brought_in=*/false);
  }
}

// What is to be told of a switch now.
v1::SwitchEvent Router::Impl::EventOf(const SwitchOp& op) const {
  const ModelRecord& model = *Find(op.model);
  const DeviceSlot& device = DeviceOf(model);
  const LeaseEntry lease = LeaseOf(model);
  const bool ours = device.swap && device.swap->model == op.model;
  const Bytes target = ours && device.swap->growing ? device.swap->target : model.needs.Smallest();
  const Bytes base = ours ? device.swap->before : lease.granted;
  v1::SwitchEvent event;
  const uint64_t master = op.filled_master ? model.needs.image : 0;
  // Weights alone: fixed and KV bytes are granted, not moved.
  event.set_bytes_total(master + target.weights - std::min(base.weights, target.weights));
  event.set_bytes_done(op.filled_master ? model.master.done : 0);
  event.set_phase(v1::QUEUED);
  if (ours && device.swap->growing) {
    event.set_phase(v1::SWITCH_LOADING);
    const uint64_t held = std::min(lease.held.weights, target.weights);
    event.set_bytes_done(event.bytes_done() + held - std::min(base.weights, held));
  } else if (ours) {
    event.set_phase(VictimsDrain(*device.swap) ? v1::SWITCH_DRAINING : v1::RELEASING);
  } else if (model.master.phase == MasterSlot::Phase::kFilling) {
    event.set_phase(v1::SWITCH_LOADING);
  } else {
    uint32_t position = device.swap ? 1 : 0;
    for (const SwitchOp& other : state_.switches) {
      if (other.order >= op.order) break;
      const bool running = device.swap && device.swap->model == other.model;
      if (Find(other.model)->device == model.device && !running) ++position;
    }
    event.set_queue_position(position);
  }
  return event;
}

// Completes the rate and writes the event to everyone, if it says anything new.
void Router::Impl::Tell(SwitchOp& op, v1::SwitchEvent event) {
  const ModelRecord& model = *Find(op.model);
  // Reading the master and copying to the device are one phase to the client, but have two rates.
  const bool fills = model.master.phase == MasterSlot::Phase::kFilling;
  const std::string subphase = absl::StrCat(event.phase(), fills ? " master" : "");
  if (subphase != op.subphase) {
    op.subphase = subphase;
    op.subphase_since = Now();
    op.subphase_base = event.bytes_done();
  }
  if (event.phase() == op.last.phase() && event.bytes_done() == op.last.bytes_done() &&
      event.bytes_total() == op.last.bytes_total() &&
      event.queue_position() == op.last.queue_position()) {
    return;
  }
  const Nanos elapsed = Now() - op.subphase_since;
  const uint64_t done = event.bytes_done() - std::min(op.subphase_base, event.bytes_done());
  if (elapsed > 0 && done > 0) {
    event.set_gb_per_s(static_cast<double>(done) / static_cast<double>(elapsed));
    if (event.phase() == v1::SWITCH_LOADING && event.bytes_total() > event.bytes_done()) {
      event.set_seconds_left(static_cast<double>(event.bytes_total() - event.bytes_done()) /
                             (event.gb_per_s() * 1e9));
    }
  }
  op.last = event;
  for (const auto& [id, sink] : op.sinks) sink->Write(event);
}

// `brought_in`: by a swap of its own.
void Router::Impl::ReadySwitch(const std::string& name, bool brought_in) {
  auto it = std::find_if(state_.switches.begin(), state_.switches.end(),
                         [&](const SwitchOp& op) { return op.model == name; });
  if (it == state_.switches.end()) return;
  // The last switch that was asked for decides, whichever is ready last.
  if (it->default_order > state_.default_order) {
    state_.default_order = it->default_order;
    state_.default_model = name;
    LogInfo("default model: ", name);
  }
  // Whoever had it brought in is about to ask it something. Asking for what is there anyway takes
  // no turn: a script that did so every second would let nobody else in.
  if (ModelRecord& model = *Find(name); brought_in) {
    model.switched = model.requests.empty();
    model.turn_until = std::max(model.turn_until, Now() + kSwitchedTurn);
  }
  v1::SwitchEvent event = it->last;
  event.set_phase(v1::READY);
  const bool loaded = it->last.phase() == v1::SWITCH_LOADING;
  event.set_bytes_done(event.bytes_total());
  event.set_seconds_left(0);
  event.set_queue_position(0);
  if (loaded) {
    const Nanos elapsed = Now() - it->subphase_since;
    const uint64_t done = event.bytes_done() - std::min(it->subphase_base, event.bytes_done());
    if (elapsed > 0) event.set_gb_per_s(static_cast<double>(done) / static_cast<double>(elapsed));
  }
  auto sinks = std::move(it->sinks);
  state_.switches.erase(it);
  dirty_ = true;
  for (const auto& [id, sink] : sinks) {
    sink->Write(event);
    sink->Finish(absl::OkStatus());
  }
}

void Router::Impl::FailSwitch(const std::string& name, const absl::Status& status) {
  auto it = std::find_if(state_.switches.begin(), state_.switches.end(),
                         [&](const SwitchOp& op) { return op.model == name; });
  if (it == state_.switches.end()) return;
  v1::SwitchEvent event;
  event.set_phase(v1::SWITCH_FAILED);
  event.set_bytes_done(it->last.bytes_done());
  event.set_bytes_total(it->last.bytes_total());
  event.set_error(ValidUtf8(std::string(status.message())));
  auto sinks = std::move(it->sinks);
  if (sinks.empty()) {
    LogWarning(name,
               it->asked ? " was not loaded, and who asked for it has left: "
                         : " is pinned, but not loaded: ",
               status.message());
  }
  state_.switches.erase(it);  // `name` may have been its own
  dirty_ = true;
  for (const auto& [id, sink] : sinks) {
    sink->Write(event);
    sink->Finish(status);
  }
}

}  // namespace switchyard::supervisor
