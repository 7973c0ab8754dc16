// Drives the router through random lives of random worlds, one per seed, and checks after every
// event what must always hold (tests/support/router_harness.cc) and at the end that nothing is left
// over.
//
//   SWITCHYARD_SEEDS=N        how many seeds (default 2000, with sanitizers 100)
//   SWITCHYARD_FIRST_SEED=S   from which on (default 1)
//   SWITCHYARD_SEED=S         only this one

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <iostream>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "supervisor/backoff.h"
#include "supervisor/host_share.h"
#include "tests/support/router_harness.h"

namespace switchyard::supervisor {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr Nanos kAtOnce = 2 * kSecond;  // a few messages, the slowest of them

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : std::strtoull(value, nullptr, 10);
}

// What became of the requests of many lives, so that one sees what was put to the test.
struct Tally {
  std::map<std::string, uint64_t> ended;  // by status
  uint64_t pauses = 0;
  uint64_t swaps = 0;
  uint64_t workers = 0;

  void Add(const Tally& other) {
    for (const auto& [status, count] : other.ended) ended[status] += count;
    pauses += other.pauses;
    swaps += other.swaps;
    workers += other.workers;
  }
  std::string Text() const {
    std::string text = absl::StrCat(workers, " workers, ", swaps, " leases grown, ", pauses,
                                    " pauses; requests ended");
    for (const auto& [status, count] : ended) absl::StrAppend(&text, " ", status, " ", count);
    return text;
  }
};

// One random life.
class Simulation {
 public:
  explicit Simulation(uint64_t seed)
      : random_(seed * 7919 + 1), more_fixed_(seed % 4 == 0 ? 3 * kMiB : 0) {
    options_.drain_timeout = Pick({1, 3, 10}) * kSecond;
    options_.queue_limit = static_cast<uint32_t>(Pick({3, 20, 1000}));
    options_.prefetch_at_start = Below(4) > 0;
    options_.probe_interval = static_cast<Nanos>(seed % 3) * 10 * kSecond;
    options_.prove_pinned = seed % 5 == 1;
    std::vector<ModelEntry> catalog = MakeCatalog();
    uint64_t largest = 0;
    uint64_t images = 0;
    for (const ModelEntry& entry : catalog) {
      const Needs needs = NeedsOf(entry.plan);
      largest = std::max(largest, needs.Smallest().total());
      images = std::max(images, needs.image);
    }
    // From barely one model to nearly all of them.
    const uint64_t devices = Below(4) == 0 ? 2 : 1;
    for (uint64_t i = 0; i < devices; ++i) {
      options_.devices.push_back(Device{absl::StrCat("device", i),
                                        largest + more_fixed_ + kMiB + Below(largest * 3), kMiB});
    }
    // Sometimes the largest are streamed.
    const uint64_t least = Below(3) == 0 ? LeastHostBudget() + Below(images) : images;
    options_.host_budget_bytes = least + Below(images * 4);
    for (ModelEntry& entry : catalog) {
      entry.model.set_device(options_.devices[Below(devices)].name);
    }
    WorldRules rules = Rules();
    rules.more_fixed = more_fixed_;
    rules.validates = seed % 5 == 0 ? 50 * kMillisecond : 0;
    rules.launches_ahead = seed % 2 == 0;
    rules.tells_early = seed % 4 < 2;
    rules.prompt_steps = seed % 4 == 3 ? 20 : 0;
    rules.faults.lacks_blocks = seed % 3 == 1 ? 0.02 : 0;
    rules.faults.loses_kv = seed % 5 == 3 ? 0.02 : 0;
    rules.faults.checkpoint_changes = seed % 7 == 0 ? 0.2 : 0;
    // Workers that are stopped before Hello; and sometimes all start slowly, but for a minute at
    // most.
    rules.faults.hangs_at_launch = seed % 6 == 0 ? 0.1 : 0;
    rules.faults.hangs_at_start = seed % 9 == 0 ? 0.1 : 0;
    rules.faults.no_memfd = seed % 19 == 3 ? 0.2 : 0;
    rules.faults.send_fails = seed % 23 == 7 ? 0.1 : 0;
    rules.faults.stalls = seed % 10 == 0 ? 0.05 : 0;
    rules.faults.deaf = seed % 13 == 0 ? 0.1 : 0;
    rules.faults.sticks = seed % 17 == 0 ? 0.02 : 0;
    if (seed % 11 == 0) rules.start = 60 * kSecond;
    harness_ = std::make_unique<RouterHarness>(seed, rules, options_, catalog);
    // One that can never be loaded, as long as the storm lasts.
    if (seed % 12 == 5) harness_->world.unreadable.insert(kBroken);
    if (seed % 12 == 11) harness_->world.unloadable.insert(kBroken);
    catalog_ = std::move(catalog);
    if (seed % 8 < 2) Inherit();  // with more_fixed_ and without
    WatchSteps();
  }

  Tally Count() const {
    Tally tally;
    tally.pauses = harness_->world.pauses;
    tally.swaps = harness_->world.grows;
    tally.workers = harness_->world.launches;
    for (const auto& client : harness_->clients) {
      const bool overdue =
          client->status.message().find("did not get its turn") != std::string::npos;
      ++tally.ended[client->cancelled ? "cancelled by the client"
                    : overdue         ? "refused for their bound"
                                      : absl::StatusCodeToString(client->status.code())];
    }
    return tally;
  }

  // "" or what went wrong.
  std::string Run() {
    RouterHarness& h = *harness_;
    h.router->Start();
    const uint64_t acts = 20 + Below(60);
    for (uint64_t i = 0; i < acts && h.violation().empty(); ++i) {
      Act();
      h.RunFor(static_cast<Nanos>(Below(Pick({100, 1000, 4000}) * kMillisecond)));
    }
    // The storm is over: whoever still waits must be served or told why not.
    h.world.rules.faults = Faults{};
    h.world.unreadable.clear();
    h.world.unloadable.clear();
    if (std::string wrong = TriedTooOften(); !wrong.empty()) return wrong;
    for (const Device& device : options_.devices) {
      h.Foreign(device.name, 0);
      // One that has become larger than it was may not be made smaller: of what it holds some is
      // pinned.
      const uint64_t now = h.router->Ledger(device.name)->device().capacity_bytes;
      if (absl::Status status =
              h.Reload(catalog_, device.name, std::max(now, device.capacity_bytes));
          !status.ok()) {
        return absl::StrCat("a device is not made larger: ", status.ToString());
      }
    }
    for (const auto& client : h.clients) h.Read(client);
    if (Below(5) == 0) return Finish();  // or it ends in the middle
    h.RunFor(60 * kSecond);              // what is slow to be reaped is reaped
    const bool all = h.RunUntil([&] { return Open() == 0; }, 3600 * kSecond);
    if (!all && h.violation().empty()) return absl::StrCat(Open(), " wait for ever; ", Waiting());
    if (!h.violation().empty()) return h.violation();
    // What nobody has asked since it was wedged or deafened, and so nobody has found out, is
    // mended.
    for (const ModelEntry& entry : catalog_) {
      FakeWorker* worker = h.world.WorkerOf(entry.model.name());
      if (worker != nullptr && (worker->wedged() || worker->deaf())) worker->Die("mended");
    }
    h.RunFor(kSecond);  // that is seen, or its model would be taken for resident
    if (std::string wrong = PinsAreKept(); !wrong.empty()) return wrong;
    // And everything still works; what had been given up, when an operator asks again.
    for (const ModelEntry& entry : catalog_) {
      std::string wrong = Serves(entry);
      if (h.StatusOf(entry.model.name()).state() == v1::FAILED) wrong = Serves(entry);
      if (!wrong.empty()) return wrong;
    }
    return Finish();
  }

 private:
  // A supervisor before has left masters.
  void Inherit() {
    uint64_t free = options_.host_budget_bytes;
    for (const ModelEntry& entry : catalog_) {
      const uint64_t image = entry.plan.image_bytes();
      if (image > free) continue;
      free -= image;
      harness_->router->Adopt(entry.model.name(), harness_->world.LeftOver(image));
    }
  }

  // No step takes longer than was predicted, whatever the clock does in between.
  void WatchSteps() {
    FakeWorld& world = harness_->world;
    world.on_gone = [this, tell = world.on_gone](Incarnation id, const WorkerExit& exit) {
      tell(id, exit);
      for (const ModelEntry& entry : catalog_) {
        const std::string last = harness_->StatusOf(entry.model.name()).last_failure();
        if (last.find("a step has run for") != std::string::npos) {
          harness_->world.on_violation(absl::StrCat("no step hangs: ", last));
        }
      }
    };
  }

  // "" or how often a model has been tried that cannot be loaded. Whatever may forgive it gives it
  // no more than as many tries as make it fail, and so do strangers, whose fault it may be; but for
  // that there are two in five minutes: a trial, and a request where there is room since.
  std::string TriedTooOften() const {
    const auto found = harness_->world.failed_loads.find(kBroken);
    if (found == harness_->world.failed_loads.end()) return "";
    const auto rows = static_cast<uint64_t>(harness_->world.timers.Now() / kProbeFailedEvery);
    const uint64_t most = kFailuresUntilFailed * (forgiven_ + 1) + 2 * rows;
    if (found->second <= most) return "";
    return absl::StrCat(kBroken, " has been tried ", found->second, " times, not ", most);
  }

  // "" or which pinned model is neither resident nor said to have no room, though nobody asks for
  // it.
  std::string PinsAreKept() {
    RouterHarness& h = *harness_;
    std::string missing;
    auto kept = [&] {
      missing.clear();
      const v1::Status now = h.router->GetStatus();
      for (const v1::ModelStatus& model : now.models()) {
        const bool there = model.state() == v1::RESIDENT || model.state() == v1::FAILED;
        const bool no_room = model.error().find(" needs ") != std::string::npos;
        if (model.pinned() && !there && (h.world.health["model/" + model.name()] || !no_room)) {
          missing = model.name();
        }
      }
      return missing.empty();
    };
    if (h.RunUntil(kept, 900 * kSecond) || !h.violation().empty()) return h.violation();
    return absl::StrCat(missing, " is pinned and not there; ", Waiting());
  }

  // "" or why the model does not answer, in peace.
  std::string Serves(const ModelEntry& entry) {
    RouterHarness& h = *harness_;
    const std::string& name = entry.model.name();
    auto op = h.Switch(name);
    h.RunUntil([&] { return op->finishes > 0; }, 600 * kSecond);
    const Nanos asked = h.world.timers.Now();
    auto client = h.Generate(name, 3);
    h.RunUntil([&] { return client->finishes > 0; }, 600 * kSecond);
    const Nanos took = h.world.timers.Now() - asked;
    if (!h.violation().empty()) return h.violation();
    if (client->finishes == 0) return absl::StrCat("no answer from ", name, "; ", Waiting());
    const bool right = client->status.ok() || RightlyRefused(entry, client->status, took);
    if (client->status.ok() != h.world.health["model/" + name]) {
      return absl::StrCat("health of ", name, " is wrong: ", client->status.ToString(), "; ",
                          Waiting());
    }
    if (right) return "";
    return absl::StrCat("in peace, after ", took / kMillisecond, " ms: ", client->status.ToString(),
                        "; ", Waiting());
  }

  uint64_t Below(uint64_t bound) { return random_() % bound; }
  int64_t Pick(std::vector<int64_t> from) { return from[Below(from.size())]; }
  double Rate(double most) {
    return Below(3) == 0 ? most * static_cast<double>(Below(100)) / 100 : 0;
  }

  WorldRules Rules() {
    WorldRules rules;
    Faults& f = rules.faults;
    f.launch_fails = Rate(0.3);
    f.dies_at_start = Rate(0.3);
    f.dies_at_message = Rate(0.05);
    f.dies_at_step = Rate(0.01);
    f.hangs = Rate(0.02);
    f.fill_fails = Rate(0.2);
    f.grow_fails = Rate(0.2);
    f.slow_ack = Rate(0.5);
    f.refuses_request = Rate(0.3);
    f.damages = Rate(0.3);
    f.unkillable = Rate(0.2);
    f.starves = Rate(0.3);
    rules.latency = Pick({1, 20, 200}) * kMillisecond;
    rules.step = Pick({5, 30, 100}) * kMillisecond;
    rules.max_sequences = static_cast<uint32_t>(1 + Below(8));
    if (Below(3) == 0) rules.bytes_per_second = static_cast<double>(Pick({5, 50, 500}) * kMiB);
    return rules;
  }

  ModelEntry MakeModel(const std::string& name) {
    const uint64_t kv = (1 + Below(20)) * kMiB;
    ModelEntry entry = FakeModel(name, (1 + Below(20)) * kMiB, (1 + Below(8)) * kMiB,
                                 static_cast<uint32_t>(1 + Below(20)), kv, kv * (1 + Below(8)));
    entry.model.set_pinned(Below(12) == 0);
    if (Below(4) == 0) entry.model.mutable_idle_timeout()->set_seconds(2 + Below(5));
    if (Below(4) == 0) entry.model.mutable_max_wait()->set_seconds(1 + Below(60));
    return entry;
  }

  std::vector<ModelEntry> MakeCatalog() {
    std::vector<ModelEntry> catalog;
    const uint64_t models = 2 + Below(6);
    for (uint64_t i = 0; i < models; ++i) catalog.push_back(MakeModel(absl::StrCat("m", i)));
    return catalog;
  }

  static constexpr char kBroken[] = "m0";

  std::string AnyModel() { return catalog_[Below(catalog_.size())].model.name(); }

  void Act() {
    RouterHarness& h = *harness_;
    switch (Below(16)) {
      case 0: {
        const std::string model = AnyModel();
        forgiven_ += model == kBroken ? 1 : 0;
        h.Switch(model, Below(2) == 0);
        return;
      }
      case 1:
        if (!h.clients.empty()) h.Cancel(h.clients[Below(h.clients.size())]);
        return;
      case 2:
        if (!h.clients.empty()) h.clients[Below(h.clients.size())]->reads = false;
        return;
      case 3:
        if (!h.clients.empty()) h.Read(h.clients[Below(h.clients.size())]);
        return;
      case 4:
        return Rare();
      case 5:
        h.Tokenize(AnyModel());
        return;
      default:
        for (uint64_t i = 1 + Below(4); i > 0; --i) {
          h.Generate(Below(10) == 0 ? "" : AnyModel(),
                     static_cast<uint32_t>(1 + Below(Pick({4, 40, 400}))),
                     Below(4) == 0 ? static_cast<Nanos>(Below(20)) * kSecond - kSecond : 0,
                     Below(5) == 0 ? static_cast<int32_t>(Below(7)) - 3 : 0,
                     Below(20) == 0 ? "bad" : "hello");
        }
    }
  }

  // It lives, and does no work, or not all of it.
  void Break(FakeWorker& worker) {
    switch (Below(3)) {
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

  void Rare() {
    RouterHarness& h = *harness_;
    const Device& device = options_.devices[Below(options_.devices.size())];
    ++forgiven_;  // pins, reloads and strangers do, or may
    switch (Below(11)) {
      case 0:
        ++calls_;
        h.router->Unload(AnyModel(), [this](absl::StatusOr<v1::UnloadReply>) { --calls_; });
        return;
      case 1:
        ++calls_;
        h.router->Prefetch(AnyModel(), [this](absl::StatusOr<v1::PrefetchReply>) { --calls_; });
        return;
      case 2:
        h.Pin(AnyModel(), Below(4) == 0).IgnoreError();
        return;
      case 3:
        if (!h.calls.empty()) h.Cancel(h.calls[Below(h.calls.size())]);
        return;
      case 4:
        if (FakeWorker* worker = h.world.WorkerOf(AnyModel())) worker->Die("killed");
        return;
      case 5:
        if (FakeWorker* worker = h.world.WorkerOf(AnyModel())) Break(*worker);
        return;
      case 6:
        h.world.timers.Jump(static_cast<Nanos>(Below(Pick({1, 10, 200}) * kSecond)));
        return;
      case 7:
        // Refused while more than that is pinned.
        h.Reload(
             catalog_, device.name,
             Below(2) == 0 ? device.capacity_bytes : device.capacity_bytes / 2 + Below(100 * kMiB))
            .IgnoreError();
        return;
      case 8: {
        const uint64_t bytes = Below(3) == 0 ? Below(device.capacity_bytes) : 0;
        if (h.router->OursOn(device.name).settled || Below(2) == 0) {
          h.Foreign(device.name, bytes);
        } else {
          h.ForeignBetween(device.name, bytes, bytes + Below(device.capacity_bytes));
        }
        return;
      }
      case 9:
        h.router->TryFailedAgain();
        return;
      default: {
        std::vector<ModelEntry> changed = catalog_;
        ModelEntry& entry = changed[Below(changed.size())];
        switch (Below(3)) {
          case 0:
            entry.model.set_pinned(!entry.model.pinned());
            break;
          case 1:
            entry.plan.set_kv_useful_bytes(entry.plan.kv_useful_bytes() + kMiB);
            break;
          default:
            std::swap(entry, changed.back());
            if (changed.size() > 1) changed.pop_back();
        }
        h.Reload(changed, device.name, h.router->Ledger(device.name)->device().capacity_bytes)
            .IgnoreError();  // it is not refused: no device becomes smaller
        catalog_ = std::move(changed);
      }
    }
  }

  int Open() const {
    int open = calls_;
    for (const auto& client : harness_->clients) {
      open += client->finishes == 0 && !client->cancelled ? 1 : 0;
    }
    for (const auto& call : harness_->calls) {
      open += call->finishes == 0 && !call->cancelled ? 1 : 0;
    }
    for (const auto& op : harness_->operators) open += op->finishes == 0 ? 1 : 0;
    return open;
  }

  std::string Waiting() const { return harness_->router->GetStatus().ShortDebugString(); }

  // Whether pinned models leave the model no room, and it was refused at once, naming them.
  bool RightlyRefused(const ModelEntry& entry, const absl::Status& status, Nanos took) const {
    const std::string& name = entry.model.name();
    const v1::Status now = harness_->router->GetStatus();
    std::set<std::string> pinned;
    for (const v1::ModelStatus& model : now.models()) {
      if (model.pinned() && model.name() != name) pinned.insert(model.name());
    }
    for (const v1::DeviceStatus& device : now.devices()) {
      if (device.name() != entry.model.device()) continue;
      uint64_t kept = device.reserve_bytes() + NeedsOf(entry.plan).Smallest().total() + more_fixed_;
      for (const auto& lease : device.leases()) {
        const uint64_t held = lease.fixed_bytes() + lease.weight_bytes() + lease.kv_bytes();
        if (pinned.count(lease.model()) == 0 || held == 0) continue;
        kept += lease.fixed_bytes() + lease.weight_bytes() +
                std::min(lease.kv_bytes(), SmallestPool(lease.model()));
        if (status.message().find(lease.model() + " (pinned)") == std::string::npos) return false;
      }
      return status.code() == absl::StatusCode::kResourceExhausted &&
             kept > device.capacity_bytes() && took <= kAtOnce;
    }
    return false;
  }
  uint64_t SmallestPool(const std::string& name) const {
    for (const ModelEntry& entry : catalog_) {
      if (entry.model.name() == name) return entry.plan.kv_smallest_bytes();
    }
    return 0;
  }

  std::string Finish() {
    harness_->DrainAndCheck(static_cast<Nanos>(Below(10)) * kSecond);
    if (harness_->violation().empty() && calls_ != 0) return "a call was not answered";
    return harness_->violation();
  }

  std::mt19937_64 random_;
  const uint64_t more_fixed_;  // than planned
  RouterOptions options_;
  std::vector<ModelEntry> catalog_;
  std::unique_ptr<RouterHarness> harness_;
  int calls_ = 0;
  uint64_t forgiven_ = 0;  // times that a model may have been given all its tries anew
};

#ifdef SWITCHYARD_SANITIZED
constexpr uint64_t kSeeds = 100;
#else
constexpr uint64_t kSeeds = 2000;
#endif

// Seeds are independent of each other: every core takes the next one.
TEST(RouterSimulation, KeepsItsPromises) {
  const bool single = std::getenv("SWITCHYARD_SEED") != nullptr;
  const uint64_t first =
      FromEnvironment("SWITCHYARD_SEED", FromEnvironment("SWITCHYARD_FIRST_SEED", 1));
  const uint64_t end = first + (single ? 1 : FromEnvironment("SWITCHYARD_SEEDS", kSeeds));
  std::atomic<uint64_t> next = first;
  std::mutex mutex;
  std::map<uint64_t, std::string> failures;
  Tally total;
  auto work = [&] {
    for (uint64_t seed = next++; seed < end; seed = next++) {
      Simulation simulation(seed);
      const std::string wrong = simulation.Run();
      const std::lock_guard<std::mutex> lock(mutex);
      total.Add(simulation.Count());
      if (wrong.empty()) continue;
      failures[seed] = wrong;
      if (failures.size() >= 5) next = end;
    }
  };
  std::vector<std::thread> threads(std::max(1u, std::thread::hardware_concurrency()));
  for (std::thread& thread : threads) thread = std::thread(work);
  for (std::thread& thread : threads) thread.join();
  std::cout << end - first << " lives: " << total.Text() << "\n";
  for (const auto& [seed, wrong] : failures)
    ADD_FAILURE() << "SWITCHYARD_SEED=" << seed << ": " << wrong;
}

}  // namespace
}  // namespace switchyard::supervisor
