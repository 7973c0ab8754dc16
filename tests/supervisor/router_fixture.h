#pragma once

#include <gtest/gtest.h>

#include <memory>
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
    options_.devices = {Device{"cpu", capacity, 0}};
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
  void TearDown() override {
    if (h_ == nullptr) return;
    h_->DrainAndCheck(10 * kSecond);
    EXPECT_EQ(h_->violation(), "");
  }

  RouterOptions options_;
  WorldRules rules_;
  std::unique_ptr<RouterHarness> h_;
};

}  // namespace switchyard::supervisor
