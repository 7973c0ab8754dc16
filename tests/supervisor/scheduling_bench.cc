// What deciding costs, with 10,000 requests in the queue:
//   scheduling_bench [MODELS [REQUESTS]]
// Prints medians of one pure decision, of everything that the router does at an event that may
// change one, and of taking in one more request.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "supervisor/scheduler.h"
#include "tests/support/router_harness.h"

namespace switchyard::supervisor {
namespace {

constexpr uint64_t kMiB = 1 << 20;
constexpr int kRounds = 2000;

template <typename F>
double MedianMicroseconds(F&& what) {
  std::vector<double> times;
  for (int i = 0; i < kRounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    what(i);
    const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
    times.push_back(took.count());
  }
  std::nth_element(times.begin(), times.begin() + kRounds / 2, times.end());
  return times[kRounds / 2];
}

// As many models as given, of which half fit; the others' requests wait.
double PureDecision(int count, int requests) {
  std::vector<SchedulerModel> models;
  std::vector<Demand> demands;
  const Needs needs{10, 200, 20, 30, 90, 10};
  for (int i = 0; i < count; ++i) {
    SchedulerModel model;
    model.tenant.model = absl::StrCat("model", i);
    model.tenant.needs = needs;
    model.tenant.last_use = i;
    if (i < count / 2) {
      model.tenant.lease = model.charge = needs.Smallest();
      model.tenant.active = true;
      model.work = Work{4, 0, 0, false};
    } else {
      Demand demand;
      demand.model = model.tenant.model;
      demand.prepared = true;
      demand.since = count - i;
      demand.due = 30 * kSecond + count - i;
      demand.swap = kSecond;
      demand.turn = 2 * kSecond;
      demand.requests = static_cast<size_t>(requests / std::max(count / 2, 1));
      demands.push_back(demand);
    }
    models.push_back(model);
  }
  const SchedulerDevice device{"gpu", 240ull * (count / 2), 0, 0, 0, 0};
  size_t sink = 0;
  const double median = MedianMicroseconds([&](int i) {
    for (Demand& demand : demands) demand.waited = i * kMillisecond;
    sink += Decide(device, models, demands, 100 + i).blocked.size();
  });
  return sink == 0 ? median : median;
}

struct InRouter {
  double decision = 0;
  double request = 0;
  size_t queued = 0;
};

// A router whose device holds one model, which works, while requests wait for all the others.
InRouter Decisions(int count, int requests) {
  RouterOptions options;
  options.devices = {Device{"gpu", 110 * kMiB + 10 * kMiB * static_cast<uint64_t>(count), 0}};
  options.host_budget_bytes = 1 << 30;
  options.host_budget_bytes *= 64;
  options.queue_limit = 1'000'000;
  std::vector<ModelEntry> catalog;
  for (int i = 0; i < count; ++i) {
    catalog.push_back(
        FakeModel(absl::StrCat("model", i), 10 * kMiB, 8 * kMiB, 10, 10 * kMiB, 40 * kMiB));
    // Nobody is pressed, so that the one that works drains throughout.
    catalog.back().model.mutable_max_wait()->set_seconds(3600);
  }
  RouterHarness h(1, WorldRules{}, options, catalog);
  h.checks = false;
  h.router->Start();
  h.RunFor(20 * kSecond);
  h.Generate("model0", 1'000'000);
  h.RunFor(kSecond);
  for (int i = 0; i < requests; ++i) {
    h.Generate(absl::StrCat("model", 1 + i % std::max(count - 1, 1)), 100'000);
  }
  h.RunFor(100 * kMillisecond);  // they are accepted, and the drain has begun
  InRouter result;
  const v1::ListModelsReply models = h.router->ListModels();
  for (const v1::ModelStatus& model : models.models()) result.queued += model.queued();
  // A stranger's byte more or less: everything is decided anew.
  result.decision = MedianMicroseconds(
      [&](int i) { h.router->OnForeignBytes("gpu", static_cast<uint64_t>(i % 2)); });
  result.request = MedianMicroseconds([&](int) { h.Generate("model1", 100); });
  return result;
}

}  // namespace
}  // namespace switchyard::supervisor

int main(int argc, char** argv) {
  using namespace switchyard::supervisor;
  const int models = argc > 1 ? std::atoi(argv[1]) : 6;
  const int requests = argc > 2 ? std::atoi(argv[2]) : 10'000;
  const double pure = PureDecision(models, requests);
  const InRouter router = Decisions(models, requests);
  std::printf(
      "%d models, %zu requests queued: a decision %.1f us, all that the router does at an "
      "event %.1f us, taking in a request %.1f us\n",
      models, router.queued, pure, router.decision, router.request);
}
