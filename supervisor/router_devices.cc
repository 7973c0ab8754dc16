// The sizes of devices, what the driver says of them, and whose energy it was.

#include <algorithm>
#include <limits>

#include "common/log.h"
#include "supervisor/router_impl.h"

namespace switchyard::supervisor {
namespace {

// What is older says nothing of now.
constexpr Nanos kSampleLife = 5 * kSecond;

}  // namespace

void Router::Impl::Resize(const std::vector<Device>& devices, v1::ReloadConfigReply& reply) {
  for (const Device& device : devices) {
    for (const auto& slot : state_.devices) {
      const Device& now = slot->ledger.device();
      if (now.name != device.name || now.capacity_bytes == device.capacity_bytes) continue;
      v1::ReloadConfigReply::DeviceSize& size = *reply.add_devices();
      size.set_name(device.name);
      size.set_capacity_bytes(device.capacity_bytes);
      size.set_capacity_bytes_before(now.capacity_bytes);
      slot->ledger.SetCapacity(device.capacity_bytes);
    }
  }
}

// Whether the model can fit at all, by what its worker has said. What the catalog's plan asks for
// was held against the device when it was made.
void Router::Impl::NoteFit(ModelRecord& model) {
  const bool fitted = model.misfit.ok();
  model.misfit = absl::OkStatus();
  if (!model.entry.problem.ok()) return;
  model.misfit = CheckFits(model.plan, DeviceOf(model).ledger.device(), options_.host_budget_bytes);
  if (fitted && !model.misfit.ok()) LogWarning(model.misfit.message());
}

OurBytes Router::Impl::OursOn(const std::string& device) const {
  OurBytes ours;
  for (const auto& slot : state_.devices) {
    if (slot->ledger.device().name != device) continue;
    const DeviceLedger& ledger = slot->ledger;
    ours = {ledger.device().capacity_bytes, ledger.held(), 0, ledger.charged(), true};
    for (const auto& [name, model] : state_.models) {
      if (&DeviceOf(*model) != slot.get()) continue;
      const bool ending = model->worker.phase == Phase::kEnding && !model->worker.quarantined;
      const LeaseEntry lease = LeaseOf(*model);
      if (!ending) ours.least += Min(lease.granted, lease.held).total();
      ours.settled &= !ending && model->lease.motion == Motion::kRest;
    }
  }
  return ours;
}

void Router::Impl::OnDeviceSample(DeviceSample sample) {
  for (const auto& slot : state_.devices) {
    if (slot->ledger.device().name != sample.device) continue;
    slot->meter.Add(sample);
    slot->sample = std::move(sample);
    status_changed_ = true;
    const std::optional<double> joules = slot->meter.joules();
    if (!joules) break;
    for (const auto& [name, share] : slot->shares.Settle(*joules)) {
      if (ModelRecord* model = Find(name)) model->joules += share;
    }
    break;
  }
  Pump();
}

// A worker that ends has told its last.
void Router::Impl::NoteBusy(ModelRecord& model, uint64_t busy_ns) {
  if (!Ready(model)) return;
  constexpr uint64_t kMost = std::numeric_limits<Nanos>::max();
  DeviceOf(model).shares.Busy(model.name(), static_cast<Nanos>(std::min(busy_ns, kMost)));
}

void Router::Impl::NoteGone(ModelRecord& model) { DeviceOf(model).shares.Gone(model.name()); }

v1::DeviceStatus Router::Impl::DeviceStatusOf(const DeviceSlot& slot) const {
  const DeviceLedger& ledger = slot.ledger;
  v1::DeviceStatus status;
  status.set_name(ledger.device().name);
  if (ledger.device().name != "cpu") status.set_uuid(ledger.device().name);
  status.set_capacity_bytes(ledger.device().capacity_bytes);
  status.set_reserve_bytes(ledger.device().reserve_bytes);
  status.set_leased_bytes(ledger.charged());
  status.set_foreign_bytes(ledger.foreign());
  status.set_free_bytes(ledger.free());
  for (const auto& [name, entry] : ledger.leases()) {
    v1::DeviceStatus::Lease& lease = *status.add_leases();
    lease.set_model(name);
    lease.set_fixed_bytes(entry.charge.fixed);
    lease.set_weight_bytes(entry.charge.weights);
    lease.set_kv_bytes(entry.charge.kv);
  }
  if (slot.sample && Now() - slot.sample->at <= kSampleLife) TellSample(*slot.sample, status);
  if (slot.meter.joules()) status.set_joules(*slot.meter.joules());
  return status;
}

void Router::Impl::TellSample(const DeviceSample& sample, v1::DeviceStatus& status) const {
  if (sample.utilization_percent) status.set_utilization_percent(*sample.utilization_percent);
  if (sample.milliwatts) status.set_watts(static_cast<double>(*sample.milliwatts) / 1e3);
  if (sample.celsius) status.set_celsius(*sample.celsius);
  if (!sample.processes) return;
  std::map<int, std::string> ours;
  for (const auto& [name, model] : state_.models) {
    if (model->worker.port) ours[model->worker.port->pid()] = name;
  }
  auto& list = *status.mutable_processes()->mutable_processes();
  for (const DeviceSample::Process& each : *sample.processes) {
    v1::DeviceStatus::Process& process = *list.Add();
    process.set_pid(each.pid);
    if (each.bytes) process.set_bytes(*each.bytes);
    if (auto it = ours.find(each.pid); it != ours.end()) process.set_model(it->second);
  }
}

// A model that has moved to a device that tells nothing keeps what it had used before.
void Router::Impl::TellEnergy(const ModelRecord& model, v1::ModelStatus& status) const {
  if (!DeviceOf(model).meter.joules() && model.joules == 0) return;
  status.set_joules(model.joules);
  if (model.joules == 0 || model.tokens == 0) return;
  status.set_joules_per_token(model.joules / static_cast<double>(model.tokens));
}

}  // namespace switchyard::supervisor
