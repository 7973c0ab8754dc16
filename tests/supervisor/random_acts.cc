#include "absl/strings/str_cat.h"
#include "tests/supervisor/random_life.h"

namespace switchyard::supervisor {
namespace {

constexpr uint64_t kMiB = 1 << 20;

}  // namespace

std::string RandomLife::AnyModel() { return catalog_[choice_.Below(catalog_.size())].model.name(); }

void RandomLife::Act() {
  RouterHarness& h = *harness_;
  switch (choice_.Below(16)) {
    case 0: {
      const std::string model = AnyModel();
      forgiven_ += model == kBroken ? 1 : 0;
      h.Switch(model, choice_.Below(2) == 0);
      return;
    }
    case 1:
      if (!h.clients.empty()) h.Cancel(h.clients[choice_.Below(h.clients.size())]);
      return;
    case 2:
      if (!h.clients.empty()) h.clients[choice_.Below(h.clients.size())]->reads = false;
      return;
    case 3:
      if (!h.clients.empty()) h.Read(h.clients[choice_.Below(h.clients.size())]);
      return;
    case 4:
      return Rare();
    case 5:
      h.Tokenize(AnyModel());
      return;
    default:
      for (uint64_t i = 1 + choice_.Below(4); i > 0; --i) Ask();
  }
}

void RandomLife::Ask() {
  harness_->Generate(
      choice_.Below(10) == 0 ? "" : AnyModel(),
      static_cast<uint32_t>(1 + choice_.Below(choice_.Pick({4, 40, 400}))),
      choice_.Below(4) == 0 ? static_cast<Nanos>(choice_.Below(20)) * kSecond - kSecond : 0,
      choice_.Below(5) == 0 ? static_cast<int32_t>(choice_.Below(7)) - 3 : 0,
      choice_.Below(20) == 0 ? "bad" : "hello");
}

// It lives, and does no work, or not all of it.
void RandomLife::Break(FakeWorker& worker) {
  switch (choice_.Below(3)) {
    case 0:
      return worker.Deafen();
    case 1:
      // Nothing but a probe tells that a worker is wedged.
      if (options_.probe_interval > 0) return worker.Wedge();
      [[fallthrough]];
    default:
      return worker.Hang();
  }
}

void RandomLife::Rare() {
  RouterHarness& h = *harness_;
  const Device& device = options_.devices[choice_.Below(options_.devices.size())];
  ++forgiven_;  // pins, reloads and strangers do, or may
  switch (choice_.Below(12)) {
    case 0:
      ++calls_;
      h.router->Unload(AnyModel(), [this](absl::StatusOr<v1::UnloadReply>) { --calls_; });
      return;
    case 1:
      ++calls_;
      h.router->Prefetch(AnyModel(), [this](absl::StatusOr<v1::PrefetchReply>) { --calls_; });
      return;
    case 2:
      h.Pin(AnyModel(), choice_.Below(4) == 0).IgnoreError();
      return;
    case 3:
      if (!h.calls.empty()) h.Cancel(h.calls[choice_.Below(h.calls.size())]);
      return;
    case 4:
      if (FakeWorker* worker = h.world.WorkerOf(AnyModel())) worker->Die("killed");
      return;
    case 5:
      if (FakeWorker* worker = h.world.WorkerOf(AnyModel())) Break(*worker);
      return;
    case 6:
      h.world.timers.Jump(static_cast<Nanos>(choice_.Below(choice_.Pick({1, 10, 200}) * kSecond)));
      return;
    case 7:
      // Refused while more than that is pinned.
      h.Reload(catalog_, device.name,
               choice_.Below(2) == 0 ? device.capacity_bytes
                                     : device.capacity_bytes / 2 + choice_.Below(100 * kMiB))
          .IgnoreError();
      return;
    case 8:
      return BeStrangers(device);
    case 9:
      h.router->TryFailedAgain();
      return;
    case 10:
      return ReloadUnplanned(device);
    default:
      return ReloadChanged(device);
  }
}

void RandomLife::BeStrangers(const Device& device) {
  RouterHarness& h = *harness_;
  const uint64_t bytes = choice_.Below(3) == 0 ? choice_.Below(device.capacity_bytes) : 0;
  if (h.router->OursOn(device.name).settled || choice_.Below(2) == 0) {
    h.Foreign(device.name, bytes);
  } else {
    h.ForeignBetween(device.name, bytes, bytes + choice_.Below(device.capacity_bytes));
  }
}

void RandomLife::ReloadChanged(const Device& device) {
  ModelEntry& entry = catalog_[choice_.Below(catalog_.size())];
  switch (choice_.Below(3)) {
    case 0:
      entry.model.set_pinned(!entry.model.pinned());
      break;
    case 1:
      entry.plan.set_kv_useful_bytes(entry.plan.kv_useful_bytes() + kMiB);
      break;
    default:
      std::swap(entry, catalog_.back());
      if (catalog_.size() > 1) catalog_.pop_back();
  }
  Reload(catalog_, device);
}

// Planners end without a verdict, of one model or of several.
void RandomLife::ReloadUnplanned(const Device& device) {
  std::vector<ModelEntry> entries = catalog_;
  for (uint64_t i = 1 + choice_.Below(2); i > 0; --i) {
    ModelEntry& entry = entries[choice_.Below(entries.size())];
    entry = UnplannedModel(entry.model);
  }
  Reload(entries, device);
}

void RandomLife::Reload(const std::vector<ModelEntry>& entries, const Device& device) {
  RouterHarness& h = *harness_;
  // It is not refused: no device becomes smaller.
  h.Reload(entries, device.name, h.router->Ledger(device.name)->device().capacity_bytes)
      .IgnoreError();
}

}  // namespace switchyard::supervisor
