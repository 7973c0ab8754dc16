// Logits that are not numbers, and steps that fail: a probe at once, and what follows.

#include <memory>

#include "supervisor/backoff.h"
#include "supervisor/retry_after.h"
#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

class RouterDamage : public RouterFixture {};

// An interval of 0 is of probes for no other reason than that time has passed.
TEST_F(RouterDamage, DamageIsFoundOutThoughTheIntervalIsZero) {
  options_.probe_interval = 0;
  Begin(150 * kMiB);
  ASSERT_TRUE(Done(h_->Switch("a")));
  h_->world.damaged.insert("a");
  EXPECT_EQ(Ask().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(h_->RunUntil([&] { return !Serves(); }, kSecond));
  h_->RunFor(100 * kSecond);
  EXPECT_FALSE(Serves()) << "of a new worker with the same weights";
  EXPECT_EQ(h_->StatusOf("a").error(), "its self-probe failed: its logits are not numbers");
  EXPECT_EQ(h_->world.submits, 2u);
  h_->world.damaged.clear();
  EXPECT_EQ(Ask(), absl::OkStatus());
  EXPECT_TRUE(Serves());
  EXPECT_EQ(h_->world.submits, 3u);
}

TEST_F(RouterDamage, WhoDoesNotReadPutsOffTheProbeAfterDamageThoughTheIntervalIsZero) {
  options_.probe_interval = 0;
  options_.sink_timeout = 1000 * kSecond;
  Begin(150 * kMiB);
  auto stalled = h_->Generate("a", 100);
  stalled->reads = false;
  ASSERT_TRUE(h_->RunUntil([&] { return stalled->tokens > 0; }));
  h_->RunFor(kSecond);
  auto damaged = h_->Generate("a", 3, 0, 0, "damaged");
  ASSERT_TRUE(Done(damaged));
  EXPECT_EQ(damaged->status.code(), absl::StatusCode::kDataLoss);
  h_->RunFor(10 * kSecond);
  EXPECT_EQ(h_->world.submits, 2u);
  EXPECT_TRUE(Serves());
}

// A new worker proves nothing of the weights.
TEST_F(RouterDamage, OneWhoseWeightsAreDamagedIsUnhealthyUntilATokenComes) {
  BeginProbing();
  h_->world.damaged.insert("a");
  ASSERT_TRUE(Becomes(false));
  EXPECT_EQ(h_->StatusOf("a").error(), "its self-probe failed: its logits are not numbers");
  h_->RunFor(3600 * kSecond);
  EXPECT_FALSE(Serves());
  EXPECT_EQ(h_->StatusOf("a").error(), "its self-probe failed: its logits are not numbers");
  EXPECT_EQ(h_->StatusOf("a").restarts(), 1u) << "nobody asks for it";
  EXPECT_EQ(h_->StatusOf("a").state(), v1::WARM);
  h_->world.damaged.clear();
  EXPECT_EQ(Ask(), absl::OkStatus());
  EXPECT_TRUE(Serves());
  EXPECT_EQ(h_->StatusOf("a").error(), "");
}

TEST_F(RouterDamage, AClientsRequestFindsDamageOutAtOnce) {
  BeginProbing();
  h_->world.damaged.insert("a");
  EXPECT_EQ(Ask().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(h_->RunUntil([&] { return !Serves(); }, kSecond));
}

TEST_F(RouterDamage, AWorkerWhoseStepsFailIsReplacedAtOnceThoughTheIntervalIsZero) {
  options_.probe_interval = 0;
  Begin(150 * kMiB);
  ASSERT_TRUE(Done(h_->Switch("a")));
  h_->world.WorkerOf("a")->Break();
  EXPECT_EQ(Ask().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").restarts() == 1; }, kSecond));
  EXPECT_EQ(Ask(), absl::OkStatus());
}

// What a request has brought about alone is its own trouble.
TEST_F(RouterDamage, DamageThatOneRequestMeetsIsNoReasonToDoubt) {
  BeginProbing();
  for (int i = 0; i < 10; ++i) {
    auto client = h_->Generate("a", 3, 0, 0, "damaged");
    ASSERT_TRUE(Done(client));
    EXPECT_EQ(client->status.code(), absl::StatusCode::kDataLoss);
    h_->RunFor(kSecond / 10);
    EXPECT_TRUE(Serves());
  }
  EXPECT_EQ(h_->world.submits, 20u) << "each asks for a probe";
  h_->RunFor(5 * kSecond);
  EXPECT_EQ(h_->world.submits, 20u) << "which has an answer";
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
}

TEST_F(RouterDamage, ADamagedModelFailsHoweverSeldomItIsAskedFor) {
  BeginProbing();
  h_->world.damaged.insert("a");
  for (int i = 0; i < kFailuresUntilFailed; ++i) {
    EXPECT_EQ(Ask().code(), absl::StatusCode::kDataLoss) << i;
    h_->RunFor(2 * kHealthyAfter);
  }
  EXPECT_EQ(h_->StatusOf("a").restarts(), uint32_t{kFailuresUntilFailed});
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() != v1::FAILED; }));
  EXPECT_FALSE(Serves()) << "a worker every five minutes: nothing is known of the weights";
  EXPECT_EQ(Ask().code(), absl::StatusCode::kDataLoss);
  h_->RunFor(kSecond);
  EXPECT_EQ(h_->StatusOf("a").state(), v1::FAILED);
  const absl::Status refused = Ask();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(refused.message().find("its logits are not numbers"), std::string::npos) << refused;
  EXPECT_FALSE(Serves());
}

// There is room for one.
TEST_F(RouterDamage, ADamagedModelDrivesOutNobodyForLong) {
  BeginProbing();
  h_->world.damaged.insert("a");
  for (uint32_t i = 1; i <= kFailuresUntilSpared; ++i) {
    EXPECT_EQ(Ask().code(), absl::StatusCode::kDataLoss) << i;
    ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").restarts() == i; }));
    ASSERT_TRUE(Done(h_->Generate("b", 1)));
  }
  const uint64_t loads = h_->StatusOf("b").loads();
  auto refused = h_->Generate("a", 1);
  ASSERT_EQ(refused->finishes, 1) << "at once";
  EXPECT_EQ(refused->status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(refused->status.message().find("its logits are not numbers"), std::string::npos)
      << refused->status;
  EXPECT_GT(RetryAfter(refused->status), kHealthyAfter - 60 * kSecond);
  EXPECT_LE(RetryAfter(refused->status), kHealthyAfter);
  h_->RunFor(RetryAfter(refused->status) - kSecond);
  EXPECT_EQ(Ask().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(h_->StatusOf("b").loads(), loads);
  EXPECT_FALSE(Serves());
}

// It is not spared for ever: who asks once every ten minutes sees it fail, and its master go.
TEST_F(RouterDamage, ADamagedModelThatNobodyGivesWayToFailsInTheEnd) {
  BeginProbing();
  h_->world.damaged.insert("a");
  int served = 0;
  for (int i = 0; i < 60 && h_->StatusOf("a").state() != v1::FAILED; ++i) {
    ASSERT_TRUE(Done(h_->Generate("b", 1)));
    h_->RunFor(60 * kSecond);
    served += Ask().code() == absl::StatusCode::kDataLoss ? 1 : 0;
    h_->RunFor(kSecond);
  }
  EXPECT_EQ(h_->StatusOf("a").state(), v1::FAILED);
  EXPECT_EQ(served, kFailuresUntilFailed);
  EXPECT_EQ(h_->StatusOf("a").master_bytes(), 0u);
  h_->world.damaged.clear();  // as a master is that has been read anew
  ASSERT_TRUE(Done(h_->Generate("b", 1)));
  for (int i = 0; i < 30 && !Serves(); ++i) {
    h_->RunFor(60 * kSecond);
    Ask().IgnoreError();
  }
  EXPECT_TRUE(Serves());
}

TEST_F(RouterDamage, WhatIsPinnedAndDamagedFails) {
  BeginProbing();
  ASSERT_EQ(h_->router->Pin("a", true), absl::OkStatus());
  h_->world.damaged.insert("a");
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::FAILED; }));
  EXPECT_EQ(h_->StatusOf("a").restarts(), uint32_t{kFailuresUntilFailed});
  const uint64_t launches = h_->world.launches;
  h_->RunFor(3600 * kSecond);
  EXPECT_LE(h_->world.launches, launches + 12) << "every five minutes";
  EXPECT_FALSE(Serves());
  h_->world.damaged.clear();
  EXPECT_TRUE(h_->RunUntil([&] { return Serves(); }));
}

}  // namespace
}  // namespace switchyard::supervisor
