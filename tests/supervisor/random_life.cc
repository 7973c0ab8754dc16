#include "tests/supervisor/random_life.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "supervisor/backoff.h"
#include "supervisor/host_share.h"
#include "tests/supervisor/random_world.h"

namespace switchyard::supervisor {
namespace {

constexpr Nanos kAtOnce = 2 * kSecond;  // a few messages, the slowest of them
constexpr uint32_t kCrowdTokens = 8;

}  // namespace

RandomLife::RandomLife(uint64_t seed) : choice_(seed) {
  RandomWorld world(seed, choice_);
  more_fixed_ = world.more_fixed;
  options_ = world.options;
  catalog_ = std::move(world.catalog);
  harness_ = std::make_unique<RouterHarness>(seed, world.rules, options_, catalog_);
  // One that can never be loaded, as long as the storm lasts.
  if (seed % 12 == 5) harness_->world.unreadable.insert(kBroken);
  if (seed % 12 == 11) harness_->world.unloadable.insert(kBroken);
  if (seed % 8 < 2) Inherit();  // with more_fixed_ and without
  WatchSteps();
}

Tally RandomLife::Count() const {
  Tally tally;
  tally.pauses = harness_->world.pauses;
  tally.swaps = harness_->world.grows;
  tally.workers = harness_->world.launches;
  for (const auto& client : harness_->clients) {
    const bool overdue = client->status.message().find("did not get its turn") != std::string::npos;
    ++tally.ended[client->cancelled ? "cancelled by the client"
                  : overdue         ? "refused for their bound"
                                    : absl::StatusCodeToString(client->status.code())];
  }
  return tally;
}

std::string RandomLife::Run() {
  RouterHarness& h = *harness_;
  h.router->Start();
  const uint64_t acts = 20 + choice_.Below(60);
  for (uint64_t i = 0; i < acts && h.violation().empty(); ++i) {
    Act();
    h.RunFor(static_cast<Nanos>(choice_.Below(choice_.Pick({100, 1000, 4000}) * kMillisecond)));
  }
  // Whoever still waits must be served or told why not.
  if (std::string wrong = EndStorm(); !wrong.empty()) return wrong;
  for (const auto& client : h.clients) h.Read(client);
  if (choice_.Below(5) == 0) return Finish();  // or it ends in the middle
  h.RunFor(60 * kSecond);                      // what is slow to be reaped is reaped
  const bool all = h.RunUntil([&] { return Open() == 0; }, 3600 * kSecond);
  if (!all && h.violation().empty()) return absl::StrCat(Open(), " wait for ever; ", Waiting());
  if (!h.violation().empty()) return h.violation();
  if (std::string wrong = AllServe(); !wrong.empty()) return wrong;
  if (std::string wrong = CrowdsGiveWay(); !wrong.empty()) return wrong;
  return Finish();
}

// In peace, a model is asked by so many that its pool does not hold them. "" or why another one's
// request is not served, where pins leave room for both.
std::string RandomLife::CrowdsGiveWay() {
  RouterHarness& h = *harness_;
  h.world.rules.faults.lacks_blocks = 0.5;
  const ModelEntry& crowded = catalog_[choice_.Below(catalog_.size())];
  const ModelEntry& other = catalog_[choice_.Below(catalog_.size())];
  // Where bytes move slowly, a turn outweighs the waiting of one request until its bound is all but
  // over, and too little of that is left for a drain. Nor do workers come in time that take a
  // minute to start.
  const WorldRules& rules = h.world.rules;
  if (&crowded == &other || rules.bytes_per_second > 0 || rules.start > kSecond) return "";
  // Who may wait for a second only may be refused rightly.
  for (const ModelEntry* entry : {&crowded, &other}) {
    const v1::Model& model = entry->model;
    if (model.has_max_wait() && model.max_wait().seconds() < 30) return "";
    if (h.StatusOf(model.name()).state() == v1::FAILED) return "";
  }
  Crowd crowd{crowded.model.name(), {}, absl::OkStatus()};
  // As many as the smallest queue takes.
  for (int i = 0; i < 3; ++i) crowd.clients.push_back(h.Generate(crowd.model, kCrowdTokens));
  RunAmid(
      crowd, [&] { return !crowd.refused.ok(); }, 5 * kSecond);
  std::string wrong = crowd.refused.ok() ? NewcomerIsServed(other, crowd) : "";  // for pins' sake
  if (!h.violation().empty()) wrong = h.violation();
  for (const auto& client : crowd.clients) h.Cancel(client);
  return wrong;
}

// True when `done`, while they go on asking.
bool RandomLife::RunAmid(Crowd& crowd, const std::function<bool()>& done, Nanos most) {
  return harness_->RunUntil(
      [&] {
        for (auto& client : crowd.clients) {
          if (client->finishes == 0 || !crowd.refused.ok()) continue;
          crowd.refused = client->status;
          client = harness_->Generate(crowd.model, kCrowdTokens);
        }
        return done();
      },
      most);
}

std::string RandomLife::NewcomerIsServed(const ModelEntry& entry, Crowd& crowd) {
  const Nanos asked = harness_->world.timers.Now();
  auto client = harness_->Generate(entry.model.name(), 2);
  const bool ended = RunAmid(
      crowd, [&] { return client->finishes > 0; }, 120 * kSecond);
  const Nanos took = harness_->world.timers.Now() - asked;
  if (!harness_->violation().empty()) return "";
  if (!ended) return absl::StrCat("no answer beside a crowd; ", Waiting());
  if (client->status.ok() || RightlyRefused(entry, client->status, took)) return "";
  return absl::StrCat("beside a crowd of ", crowd.model, ", after ", took / kMillisecond,
                      " ms: ", client->status.ToString(), "; ", Waiting());
}

std::string RandomLife::EndStorm() {
  RouterHarness& h = *harness_;
  h.world.rules.faults = Faults{};
  h.world.unreadable.clear();
  h.world.unloadable.clear();
  if (std::string wrong = TriedTooOften(); !wrong.empty()) return wrong;
  for (const Device& device : options_.devices) {
    h.Foreign(device.name, 0);
    // One that has become larger than it was may not be made smaller: of what it holds some is
    // pinned.
    const uint64_t now = h.router->Ledger(device.name)->device().capacity_bytes;
    const absl::Status status =
        h.Reload(catalog_, device.name, std::max(now, device.capacity_bytes));
    if (!status.ok()) return absl::StrCat("a device is not made larger: ", status.ToString());
  }
  return "";
}

std::string RandomLife::AllServe() {
  RouterHarness& h = *harness_;
  // What nobody has asked since it was wedged or deafened, and so nobody has found out, is mended.
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
  return "";
}

void RandomLife::Inherit() {
  uint64_t free = options_.host_budget_bytes;
  for (const ModelEntry& entry : catalog_) {
    const uint64_t image = entry.plan.image_bytes();
    if (image > free) continue;
    free -= image;
    harness_->router->Adopt(entry.model.name(), harness_->world.LeftOver(image));
  }
}

void RandomLife::WatchSteps() {
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
std::string RandomLife::TriedTooOften() const {
  const auto found = harness_->world.failed_loads.find(kBroken);
  if (found == harness_->world.failed_loads.end()) return "";
  const auto rows = static_cast<uint64_t>(harness_->world.timers.Now() / kProbeFailedEvery);
  const uint64_t most = kFailuresUntilFailed * (forgiven_ + 1) + 2 * rows;
  if (found->second <= most) return "";
  return absl::StrCat(kBroken, " has been tried ", found->second, " times, not ", most);
}

// "" or which pinned model is neither resident nor said to have no room, though nobody asks for
// it.
std::string RandomLife::PinsAreKept() {
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
std::string RandomLife::Serves(const ModelEntry& entry) {
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

int RandomLife::Open() const {
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

std::string RandomLife::Waiting() const { return harness_->router->GetStatus().ShortDebugString(); }

// Whether pinned models leave the model no room, and it was refused at once, naming them.
bool RandomLife::RightlyRefused(const ModelEntry& entry, const absl::Status& status,
                                Nanos took) const {
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
uint64_t RandomLife::SmallestPool(const std::string& name) const {
  for (const ModelEntry& entry : catalog_) {
    if (entry.model.name() == name) return entry.plan.kv_smallest_bytes();
  }
  return 0;
}

std::string RandomLife::Finish() {
  harness_->DrainAndCheck(static_cast<Nanos>(choice_.Below(10)) * kSecond);
  if (harness_->violation().empty() && calls_ != 0) return "a call was not answered";
  return harness_->violation();
}

}  // namespace switchyard::supervisor
