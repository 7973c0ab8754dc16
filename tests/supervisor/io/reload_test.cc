// Reloads, and what is planned again, with a script in the worker's place.

#include "supervisor/reload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "supervisor/event_loop.h"
#include "tests/support/router_harness.h"
#include "tests/support/temp_dir.h"

namespace switchyard::supervisor {
namespace {

namespace fs = std::filesystem;

// A plan, unless `why` says of the model why there is none; `killed`: by something else.
constexpr char kScript[] = R"sh(#!/bin/sh
cd "${0%/*}" || exit 9
echo >> runs
[ ! -e killed ] || kill -9 $$
[ ! -e why ] || { cat why >&2; exit 1; }
cat plan
)sh";

class ReloadTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::create_directory(dir_ / "models.d");
    Write("models.d/a.textproto", "name: 'a' checkpoint: 'a'");
    Write("worker", kScript);
    fs::permissions(dir_ / "worker", fs::perms::owner_all);
    WritePlan(kMiB);
    ::setenv("SWITCHYARD_WORKER", (dir_ / "worker").c_str(), 1);
  }
  void TearDown() override { ::unsetenv("SWITCHYARD_WORKER"); }

  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(dir_ / name) << text;
  }
  void WritePlan(uint64_t image) const {
    Write("plan", absl::StrCat("model: 'a' chunks: 1 chunk_bytes: ", image, " image_bytes: ", image,
                               " fixed_bytes: 1 kv_smallest_bytes: 1 kv_useful_bytes: 1 "
                               "kv_granule_bytes: 1 max_sequences: 4"));
  }
  // As a supervisor that starts.
  void Start(Nanos plan_again_every) {
    InForce in_force;
    in_force.budget = {{Device{"cpu", 64 * kMiB, 0}}, 64 * kMiB};
    auto catalog = ReadCatalog(dir_ / "models.d", in_force.budget, PlanFor::kServe, -1);
    ASSERT_TRUE(catalog.ok()) << catalog.status();
    RouterOptions options;
    options.devices = in_force.budget.devices;
    options.host_budget_bytes = in_force.budget.host_bytes;
    harness_ = std::make_unique<RouterHarness>(1, WorldRules(), options, *catalog);
    harness_->router->Start();
    auto reloader = Reloader::Create(&loop_, harness_->router.get(),
                                     {dir_ / "models.d", "", {}, plan_again_every}, in_force,
                                     *std::move(catalog));
    ASSERT_TRUE(reloader.ok()) << reloader.status();
    reloader_ = *std::move(reloader);
  }
  // The loop runs once in each test; what comes after a reload is a task of its own.
  void Reload(std::function<void(const v1::ReloadConfigReply&)> then) {
    reloader_->Reload([this, then](const absl::StatusOr<v1::ReloadConfigReply>& reply) {
      loop_.Post([this, then, reply] {
        EXPECT_TRUE(reply.ok()) << reply.status();
        reply.ok() ? then(*reply) : loop_.Stop();
      });
    });
  }
  void StopWhen(std::function<bool()> done) {
    if (done()) return loop_.Stop();
    loop_.Start(kMillisecond, [this, done] { StopWhen(done); });
  }
  uint64_t Runs() const { return fs::file_size(dir_ / "runs"); }
  v1::ModelStatus Model() {
    harness_->RunFor(kSecond);
    return harness_->StatusOf("a");
  }

  static constexpr uint64_t kMiB = 1 << 20;
  testing::TempDir dir_;
  EventLoop loop_;
  std::unique_ptr<RouterHarness> harness_;
  std::unique_ptr<Reloader> reloader_;
};

TEST_F(ReloadTest, APlannerThatIsKilledChangesNothingAndAVerdictDoes) {
  Start(kPlanAgainEvery);
  Write("killed", "");
  Reload([&](const v1::ReloadConfigReply& reply) {
    EXPECT_THAT(reply.not_planned(), ::testing::ElementsAre("a"));
    EXPECT_EQ(reply.changed_size(), 0);
    EXPECT_EQ(Model().error(), "");
    fs::remove(dir_ / "killed");
    Write("why", "a has no config.json");
    Reload([&](const v1::ReloadConfigReply& verdict) {
      EXPECT_EQ(verdict.not_planned_size(), 0);
      EXPECT_THAT(verdict.changed(), ::testing::ElementsAre("a"));
      EXPECT_EQ(Model().error(), "a has no config.json");
      loop_.Stop();
    });
  });
  loop_.Run();
}

TEST_F(ReloadTest, WhatCouldNotBePlannedAtTheStartIsPlannedAgain) {
  Write("killed", "");
  Start(kMillisecond);
  EXPECT_EQ(Model().state(), v1::FAILED);
  EXPECT_THAT(Model().error(), ::testing::HasSubstr("signal 9"));
  // It is not models.d that is read again.
  Write("models.d/b.textproto", "name: 'b' checkpoint: 'b'");
  fs::remove(dir_ / "killed");
  loop_.Post([&] { StopWhen([&] { return Model().error().empty(); }); });
  loop_.Run();
  EXPECT_NE(Model().state(), v1::FAILED);
  EXPECT_EQ(Model().weight_bytes(), kMiB);
  EXPECT_EQ(harness_->StatusOf("b").name(), "");
}

TEST_F(ReloadTest, WhatAReloadCouldNotPlanIsPlannedAgainUntilItIs) {
  Start(kMillisecond);
  Write("killed", "");
  WritePlan(2 * kMiB);
  Reload([&](const v1::ReloadConfigReply&) {
    EXPECT_EQ(Model().weight_bytes(), kMiB);
    const auto runs = Runs();
    StopWhen([this, runs] {
      if (Runs() > runs + 1) fs::remove(dir_ / "killed");
      return Model().weight_bytes() == 2 * kMiB;
    });
  });
  loop_.Run();
  EXPECT_EQ(Model().error(), "");
}

TEST_F(ReloadTest, WhatWasPlannedIsNotPlannedAgain) {
  Start(0);
  Reload([&](const v1::ReloadConfigReply&) {
    const auto runs = Runs();
    // A timer of now would come before this one.
    loop_.Start(kMillisecond, [this, runs] {
      Reload([this, runs](const v1::ReloadConfigReply&) {
        EXPECT_EQ(Runs(), runs + 1);
        loop_.Stop();
      });
    });
  });
  loop_.Run();
}

}  // namespace
}  // namespace switchyard::supervisor
