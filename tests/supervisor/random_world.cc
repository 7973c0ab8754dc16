#include "tests/supervisor/random_world.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "supervisor/host_share.h"
#include "tests/support/router_harness.h"

namespace switchyard::supervisor {
namespace {

constexpr uint64_t kMiB = 1 << 20;

WorldRules DrawRules(RandomChoice& choice) {
  WorldRules rules;
  Faults& f = rules.faults;
  f.launch_fails = choice.Rate(0.3);
  f.dies_at_start = choice.Rate(0.3);
  f.dies_at_message = choice.Rate(0.05);
  f.dies_at_step = choice.Rate(0.01);
  f.hangs = choice.Rate(0.02);
  f.fill_fails = choice.Rate(0.2);
  f.grow_fails = choice.Rate(0.2);
  f.slow_ack = choice.Rate(0.5);
  f.refuses_request = choice.Rate(0.3);
  f.damages = choice.Rate(0.3);
  f.unkillable = choice.Rate(0.2);
  f.starves = choice.Rate(0.3);
  rules.latency = choice.Pick({1, 20, 200}) * kMillisecond;
  rules.step = choice.Pick({5, 30, 100}) * kMillisecond;
  rules.max_sequences = static_cast<uint32_t>(1 + choice.Below(8));
  if (choice.Below(3) == 0)
    rules.bytes_per_second = static_cast<double>(choice.Pick({5, 50, 500}) * kMiB);
  return rules;
}

ModelEntry DrawModel(const std::string& name, RandomChoice& choice) {
  const uint64_t kv = (1 + choice.Below(20)) * kMiB;
  ModelEntry entry =
      FakeModel(name, (1 + choice.Below(20)) * kMiB, (1 + choice.Below(8)) * kMiB,
                static_cast<uint32_t>(1 + choice.Below(20)), kv, kv * (1 + choice.Below(8)));
  entry.model.set_pinned(choice.Below(12) == 0);
  if (choice.Below(4) == 0) entry.model.mutable_idle_timeout()->set_seconds(2 + choice.Below(5));
  if (choice.Below(4) == 0) entry.model.mutable_max_wait()->set_seconds(1 + choice.Below(60));
  return entry;
}

std::vector<ModelEntry> DrawCatalog(RandomChoice& choice) {
  std::vector<ModelEntry> catalog;
  const uint64_t models = 2 + choice.Below(6);
  for (uint64_t i = 0; i < models; ++i) catalog.push_back(DrawModel(absl::StrCat("m", i), choice));
  return catalog;
}

RouterOptions DrawOptions(uint64_t seed, RandomChoice& choice) {
  RouterOptions options;
  options.drain_timeout = choice.Pick({1, 3, 10}) * kSecond;
  options.queue_limit = static_cast<uint32_t>(choice.Pick({3, 20, 1000}));
  options.prefetch_at_start = choice.Below(4) > 0;
  options.probe_interval = static_cast<Nanos>(seed % 3) * 10 * kSecond;
  options.prove_pinned = seed % 5 == 1;
  return options;
}

// What is rare has seeds of its own.
void AddRareFaults(uint64_t seed, WorldRules& rules) {
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
}

}  // namespace

RandomWorld::RandomWorld(uint64_t seed, RandomChoice& choice)
    : more_fixed(seed % 4 == 0 ? 3 * kMiB : 0),
      options(DrawOptions(seed, choice)),
      catalog(DrawCatalog(choice)) {
  AddDevices(choice);
  rules = DrawRules(choice);
  rules.more_fixed = more_fixed;
  AddRareFaults(seed, rules);
}

void RandomWorld::AddDevices(RandomChoice& choice) {
  uint64_t largest = 0;
  uint64_t images = 0;
  for (const ModelEntry& entry : catalog) {
    const Needs needs = NeedsOf(entry.plan);
    largest = std::max(largest, needs.Smallest().total());
    images = std::max(images, needs.image);
  }
  const uint64_t devices = choice.Below(4) == 0 ? 2 : 1;
  for (uint64_t i = 0; i < devices; ++i) {
    const uint64_t capacity = largest + more_fixed + kMiB + choice.Below(largest * 3);
    options.devices.push_back(Device{absl::StrCat("device", i), capacity, kMiB});
  }
  // Sometimes the largest are streamed.
  const uint64_t least = choice.Below(3) == 0 ? LeastHostBudget() + choice.Below(images) : images;
  options.host_budget_bytes = least + choice.Below(images * 4);
  for (ModelEntry& entry : catalog) {
    entry.model.set_device(options.devices[choice.Below(devices)].name);
  }
}

}  // namespace switchyard::supervisor
