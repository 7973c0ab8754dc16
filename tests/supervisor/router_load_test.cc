// Serving against swapping under an alternating load: the scheduler's turns, and first come, first
// served, on the same trace.

#include <gtest/gtest.h>

#include <iostream>

#include "tests/support/router_harness.h"

namespace switchyard::supervisor {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

// What a device did while a trace was served.
struct Load {
  double served = 0;   // of the time that was not idle
  double seconds = 0;  // from the first request to the last answer
  double longest = 0;  // seconds from arrival to answer
  uint64_t swaps = 0;
  size_t refused = 0;
};

// Two models of 64 GiB of weights, of which one fits at a time; 50 GB/s bring one in. A request
// runs for 12 steps of 10 ms on average, four requests at a time.
class LoadTrace {
 public:
  LoadTrace() {
    RouterOptions options;
    options.devices = {Device{"gpu", 80 * kGiB, 0}};
    options.host_budget_bytes = 400 * kGiB;
    options.queue_limit = 100'000;
    WorldRules rules;
    rules.bytes_per_second = 50e9;
    rules.step = 20 * kMillisecond;
    std::vector<ModelEntry> catalog;
    for (const char* name : {"a", "b"}) {
      catalog.push_back(FakeModel(name, kGiB, kGiB, 64, 4 * kGiB, 10 * kGiB));
    }
    h_ = std::make_unique<RouterHarness>(1, rules, options, catalog);
    h_->router->Start();
    h_->RunFor(10 * kSecond);  // masters are filled
  }
  ~LoadTrace() {
    h_->DrainAndCheck(kSecond);
    EXPECT_EQ(h_->violation(), "");
  }

  // As requests come: one each 40 ms, for one model and the other in turns.
  Load Turns(int requests) {
    Begin();
    std::vector<Nanos> arrived;
    for (int i = 0; i < requests; ++i) {
      Send(i);
      h_->RunFor(40 * kMillisecond);
    }
    EXPECT_TRUE(h_->RunUntil([&] { return Answered() == h_->clients.size(); }));
    return End();
  }

  // The same requests, each when the one before it has been answered, as a server does that is
  // started anew for every model.
  Load FirstComeFirstServed(int requests) {
    Begin();
    for (int i = 0; i < requests; ++i) {
      const auto client = Send(i);
      EXPECT_TRUE(h_->RunUntil([&] { return client->finishes > 0; }));
    }
    return End();
  }

 private:
  std::shared_ptr<ClientView> Send(int i) { return h_->Generate(i % 2 == 0 ? "a" : "b", 12); }
  size_t Answered() const {
    size_t answered = 0;
    for (const auto& client : h_->clients) answered += client->finishes > 0 ? 1 : 0;
    return answered;
  }
  Nanos Busy() { return h_->world.WorkerOf("a")->busy() + h_->world.WorkerOf("b")->busy(); }
  void Begin() {
    began_ = h_->world.timers.Now();
    h_->world.swapping = 0;
    h_->world.grows = 0;
  }
  Load End() {
    Load load;
    const double served = static_cast<double>(Busy());
    load.served = served / (served + static_cast<double>(h_->world.swapping));
    load.seconds = static_cast<double>(h_->world.timers.Now() - began_) / kSecond;
    load.swaps = h_->world.grows;
    for (const auto& client : h_->clients) {
      load.refused += client->status.ok() ? 0 : 1;
      load.longest =
          std::max(load.longest, (client->timings.queue_ms() + client->timings.swap_ms()) / 1000);
    }
    return load;
  }

  std::unique_ptr<RouterHarness> h_;
  Nanos began_ = 0;
};

void Print(const char* name, const Load& load) {
  std::cout << name << ": " << load.served * 100 << "% of the time served, " << load.swaps
            << " swaps, " << load.seconds << " s in all, longest wait " << load.longest << " s, "
            << load.refused << " refused\n";
}

TEST(RouterLoad, AlternatingRequestsAreServedRatherThanSwappedFor) {
  constexpr int kRequests = 3000;
  const Load turns = LoadTrace().Turns(kRequests);
  const Load first = LoadTrace().FirstComeFirstServed(kRequests);
  Print("turns", turns);
  Print("first come, first served", first);
  EXPECT_GT(turns.served, 0.6);
  EXPECT_LT(first.served, 0.1);
  EXPECT_EQ(turns.refused, 0u);
  EXPECT_LT(turns.longest, 30);
}

}  // namespace
}  // namespace switchyard::supervisor
