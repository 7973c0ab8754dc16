#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/router_harness.h"

namespace switchyard::supervisor {

constexpr uint64_t kMiB = 1 << 20;

// Three models of 100 MiB (10 fixed, 80 weights in 10 chunks, 10 smallest KV).
class RouterFixture : public ::testing::Test {
 protected:
  static std::vector<ModelEntry> Catalog() {
    std::vector<ModelEntry> catalog;
    for (const char* name : {"a", "b", "c"}) {
      catalog.push_back(FakeModel(name, 10 * kMiB, 8 * kMiB, 10, 10 * kMiB, 40 * kMiB));
    }
    return catalog;
  }
  static std::vector<ModelEntry> WithPinned(size_t model,
                                            std::vector<ModelEntry> catalog = Catalog()) {
    catalog[model].model.set_pinned(true);
    return catalog;
  }
  void Make(uint64_t capacity, uint64_t host, std::vector<ModelEntry> catalog) {
    options_.devices = {Device{device_, capacity, 0}};
    options_.host_budget_bytes = host;
    h_ = std::make_unique<RouterHarness>(1, rules_, options_, std::move(catalog));
  }
  void Begin(uint64_t capacity, uint64_t host = 1024 * kMiB,
             std::vector<ModelEntry> catalog = Catalog()) {
    Make(capacity, host, std::move(catalog));
    h_->router->Start();
  }
  // With its first model pinned.
  void BeginPinned(uint64_t capacity) { Begin(capacity, 1024 * kMiB, WithPinned(0)); }
  void Settle() { h_->RunFor(5 * kSecond); }
  bool Done(const std::shared_ptr<ClientView>& client) {
    return h_->RunUntil([&] { return client->finishes > 0; });
  }
  bool Done(const std::shared_ptr<OperatorView>& op) {
    return h_->RunUntil([&] { return op->finishes > 0; });
  }
  // Kills the worker of `a` and waits until it has been noticed.
  void Kill() {
    const uint32_t before = h_->StatusOf("a").restarts();
    ASSERT_TRUE(h_->RunUntil([&] { return h_->world.WorkerOf("a") != nullptr; }));
    h_->world.WorkerOf("a")->Die("test");
    ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").restarts() > before; }));
  }
  bool Serves(const std::string& model = "a") { return h_->world.health["model/" + model]; }
  // At once: it is there.
  void ExpectServes(const std::string& model) {
    auto client = h_->Generate(model, 2);
    EXPECT_TRUE(h_->RunUntil([&] { return client->finishes > 0; }, kSecond)) << model;
    EXPECT_EQ(client->status, absl::OkStatus());
  }
  // A switch that needs `a` to give way is given up after a drain, for `why`; `a` serves on.
  void ExpectGivenUp(const std::shared_ptr<OperatorView>& op, const std::string& why) {
    ASSERT_TRUE(h_->RunUntil([&] { return op->finishes > 0; }, 12 * kSecond));
    EXPECT_EQ(op->status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_NE(op->status.message().find(why), std::string::npos) << op->status;
    EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);
    ExpectServes("a");
  }
  // With probes, and `a` on the device.
  void BeginProbing(std::vector<ModelEntry> catalog = Catalog()) {
    options_.probe_interval = 10 * kSecond;
    Begin(150 * kMiB, 1024 * kMiB, std::move(catalog));
    Settle();
    ASSERT_TRUE(Done(h_->Switch("a")));
  }
  bool Becomes(bool serving) {
    return h_->RunUntil([&] { return Serves() == serving; }, 60 * kSecond);
  }
  absl::Status Ask() {
    auto client = h_->Generate("a", 2);
    return Done(client) ? client->status : absl::DeadlineExceededError("no answer");
  }
  absl::Status Prefetch(const std::string& model) {
    auto status = std::make_shared<std::optional<absl::Status>>();
    h_->router->Prefetch(model, [status](const absl::StatusOr<v1::PrefetchReply>& reply) {
      *status = reply.status();
    });
    h_->RunUntil([&] { return status->has_value(); });
    return status->value_or(absl::DeadlineExceededError("no answer"));
  }
  // `a` answers for long and is to leave to `b`, and has an hour to drain; there is no room to
  // pause into.
  struct Drain {
    std::shared_ptr<ClientView> busy;
    std::shared_ptr<OperatorView> op;
  };
  Drain DrainLong() {
    options_.drain_timeout = 3600 * kSecond;
    Begin(150 * kMiB, 85 * kMiB);
    Settle();
    Drain drain;
    drain.busy = h_->Generate("a", 100'000);
    EXPECT_TRUE(h_->RunUntil([&] { return drain.busy->tokens > 0; }));
    drain.op = h_->Switch("b");
    EXPECT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::DRAINING; }));
    return drain;
  }
  void TearDown() override {
    if (h_ == nullptr) return;
    h_->DrainAndCheck(10 * kSecond);
    EXPECT_EQ(h_->violation(), "");
  }

  std::string device_ = "cpu";
  RouterOptions options_;
  WorldRules rules_;
  std::unique_ptr<RouterHarness> h_;
};

}  // namespace switchyard::supervisor
