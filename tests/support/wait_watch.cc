#include "tests/support/wait_watch.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "supervisor/turns.h"

namespace switchyard::supervisor {
namespace {

// A bound that has fallen by less than a second may stand; and timers are set after deciding.
constexpr Nanos kAllowance = kSecond + 10 * kMillisecond;
constexpr double kAssumedRate = 1e9;  // no less, until bytes have moved

Nanos MaxWait(const v1::Model& model) {
  if (!model.has_max_wait()) return kMaxWait;
  return model.max_wait().seconds() * kSecond + model.max_wait().nanos();
}

}  // namespace

WaitWatch::WaitWatch(const FakeWorld* world, const RouterOptions& options,
                     const std::vector<ModelEntry>& catalog)
    : world_(world), options_(options), last_(world->timers.Awake()) {
  Knows(catalog);
}

void WaitWatch::Knows(const std::vector<ModelEntry>& catalog) {
  for (const ModelEntry& entry : catalog) models_[entry.model.name()].entry = entry;
}

void WaitWatch::Pins(const std::string& model, bool pinned) {
  models_[model].entry.model.set_pinned(pinned);
}

// What has passed belongs to how things stood. A machine that sleeps keeps nobody waiting.
void WaitWatch::Advance() {
  const Nanos now = world_->timers.Awake();
  const Nanos passed = now - std::exchange(last_, now);
  if (passed == 0) return;
  for (auto& [name, model] : models_) {
    const Worker* worker = WorkerOf(model);
    if (worker == nullptr || !worker->comes()) model.held_up += passed;
  }
}

void WaitWatch::Arrives(const void* client, const std::string& model) {
  Advance();
  if (models_.count(model) == 0) return;
  clients_[client].model = model;
  Waits(client);
}

void WaitWatch::Waits(const void* client) {
  Client& waits = clients_.at(client);
  Model& model = models_.at(waits.model);
  waits.began = model.held_up;
  waits.bound = Bound(waits.model);  // others may end in the same event
  model.clients.insert(client);
}

void WaitWatch::Tells(const void* client, const v1::GenerateEvent& event) {
  const auto found = clients_.find(client);
  if (found == clients_.end()) return;
  Advance();
  auto& waiting = models_.at(found->second.model).clients;
  if (!OnlyWaits(event) && waiting.count(client) > 0) {
    NoteBounds();
    waiting.erase(client);
  }
  if (event.waiting().paused() && waiting.count(client) == 0) Waits(client);
}

void WaitWatch::Leaves(const void* client) {
  const auto found = clients_.find(client);
  if (found == clients_.end()) return;
  Advance();
  NoteBounds();  // with this one: others may have been told of the same event before
  models_.at(found->second.model).clients.erase(client);
  clients_.erase(found);
}

void WaitWatch::Wants(const std::string& model, bool wants) {
  models_[model].wanted += wants ? 1 : -1;
  NoteBounds();  // it may be over before anybody looks again
}

void WaitWatch::Sent(Incarnation id, const v1::ToWorker& message) {
  const auto found = workers_.find(id);
  if (found == workers_.end()) return;
  Advance();
  Worker& worker = found->second;
  if (message.has_use_master()) worker.filling = !message.use_master().complete();
  if (message.has_shutdown()) worker.ends = true;
  if (message.has_set_lease()) {
    if (worker.moves_since == 0) {
      worker.before = worker.granted;
      worker.moves_since = world_->timers.Now();
    }
    const v1::LeaseBytes& lease = message.set_lease().lease();
    worker.granted = {lease.fixed_bytes(), lease.weight_bytes(), lease.kv_bytes()};
    worker.epoch = message.set_lease().epoch();
  }
  Note(worker);
}

void WaitWatch::Ends(Incarnation id) {
  const auto found = workers_.find(id);
  if (found == workers_.end()) return;
  Advance();
  found->second.ends = true;
  Note(found->second);
}

void WaitWatch::Says(Incarnation id, const std::string& model, const v1::FromWorker& message) {
  Advance();
  if (message.has_hello()) {
    workers_[id].model = model;
    workers_[id].needs = NeedsOf(message.hello().plan());
    models_[model].worker = id;
  }
  const auto found = workers_.find(id);
  if (found == workers_.end()) return;
  Worker& worker = found->second;
  if (message.has_master()) {
    worker.filling = message.master().state() == v1::MasterStatus::FILLING;
  }
  if (message.has_lease()) SaysLease(worker, message.lease());
  Note(worker);
}

void WaitWatch::SaysLease(Worker& worker, const v1::LeaseStatus& status) {
  worker.held = {status.held().fixed_bytes(), status.held().weight_bytes(),
                 status.held().kv_bytes()};
  if (!status.settled() || status.epoch() != worker.epoch || worker.moves_since == 0) return;
  const Nanos took = world_->timers.Now() - std::exchange(worker.moves_since, 0);
  if (worker.held.weights <= worker.before.weights || took <= 0) return;
  const double rate = static_cast<double>(worker.held.weights - worker.before.weights) /
                      static_cast<double>(took) * kSecond;
  double& slowest = slowest_.try_emplace(DeviceOf(models_.at(worker.model)), rate).first->second;
  slowest = std::min(slowest, rate);
}

void WaitWatch::Gone(Incarnation id) {
  const auto found = workers_.find(id);
  if (found == workers_.end()) return;
  Ends(id);
  Model& model = models_.at(found->second.model);
  if (model.worker == id) model.worker = 0;
  workers_.erase(found);
}

// Notes from when to when the model is resident: after a turn, who still waits begins anew. It may
// have been cut short (its worker died, strangers came), of which the router makes no turn: then as
// much may be left to wait as there was.
void WaitWatch::Note(Worker& worker) {
  const Nanos now = world_->timers.Now();
  if (worker.resident()) {
    if (worker.resident_since == 0) worker.resident_since = now;
    return;
  }
  const Nanos since = std::exchange(worker.resident_since, 0);
  if (since == 0 || now - since < kLeastTurn) return;
  const Model& model = models_.at(worker.model);
  for (const void* key : model.clients) {
    Client& client = clients_.at(key);
    const Nanos left = client.bound - (model.held_up - client.began);
    Waits(key);
    client.bound = std::max(client.bound, left);
  }
}

const WaitWatch::Worker* WaitWatch::WorkerOf(const Model& model) const {
  const auto found = workers_.find(model.worker);
  return found == workers_.end() ? nullptr : &found->second;
}

std::string WaitWatch::DeviceOf(const Model& model) const {
  const std::string& device = model.entry.model.device();
  return device.empty() ? options_.devices[0].name : device;
}

// What bringing in the model may take: all of its image, the KV of all that might make room or are
// doing so, and its own that comes back, at the slowest rate that there has been.
Nanos WaitWatch::SwapOf(const Model& model) const {
  const std::string device = DeviceOf(model);
  uint64_t bytes = NeedsOf(model.entry.plan).image;
  for (const auto& [id, worker] : workers_) {
    if (DeviceOf(models_.at(worker.model)) != device) continue;
    bytes += std::max(worker.granted.kv, worker.held.kv);
  }
  const auto worker = world_->workers.find(model.worker);
  if (worker != world_->workers.end()) bytes += worker->second->paused_bytes();
  const auto slowest = slowest_.find(device);
  const double rate = slowest == slowest_.end() ? kAssumedRate : slowest->second;
  return SwapTime(bytes, std::min(rate, kAssumedRate));
}

// The largest bound that can be right now for requests of the model.
Nanos WaitWatch::Bound(const std::string& name) const {
  const Model& self = models_.at(name);
  const std::string device = DeviceOf(self);
  Nanos present = 0;
  Nanos others = 0;
  for (const auto& [other_name, other] : models_) {
    if (other_name == name || DeviceOf(other) != device) continue;
    const Worker* worker = WorkerOf(other);
    if (worker != nullptr && worker->resident()) {
      present = std::max({present, LeastTurn(SwapOf(other)), kSwitchedTurn});
      continue;
    }
    const bool by_operator = other.wanted > 0 || other.entry.model.pinned();
    if (other.clients.empty() && !by_operator) continue;
    const Nanos turn = std::max(LeastTurn(SwapOf(other)), by_operator ? kSwitchedTurn : 0);
    others += kRelease + SwapOf(other) + turn;
  }
  return std::max(MaxWait(self.entry.model), present + kRelease + others);
}

bool WaitWatch::Waiting(const Model& model) const {
  const Worker* worker = WorkerOf(model);
  return !model.clients.empty() && (worker == nullptr || !worker->comes());
}

void WaitWatch::NoteBounds() {
  for (const auto& [name, model] : models_) {
    if (!Waiting(model)) continue;
    const Nanos bound = Bound(name);
    for (const void* key : model.clients) {
      Client& client = clients_.at(key);
      client.bound = std::max(client.bound, bound);
    }
  }
}

std::string WaitWatch::Check() {
  Advance();
  NoteBounds();
  for (const auto& [name, model] : models_) {
    if (!Waiting(model)) continue;
    for (const void* key : model.clients) {
      const Client& client = clients_.at(key);
      const Nanos waited = model.held_up - client.began;
      if (waited <= client.bound + kAllowance) continue;
      return absl::StrCat("a request for ", name, " has waited for ", waited / kMillisecond,
                          " ms, and no bound was larger than ", client.bound / kMillisecond, " ms");
    }
  }
  return "";
}

}  // namespace switchyard::supervisor
