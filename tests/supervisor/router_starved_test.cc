// What we have no descriptors or memory for just now is no failure of a model.

#include "supervisor/backoff.h"
#include "supervisor/retry_after.h"
#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

class RouterStarved : public RouterFixture {
 protected:
  void Starve(bool starves) { h_->world.rules.faults.starves = starves ? 1 : 0; }
  void ExpectWant(const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_NE(status.message().find("Too many open files"), std::string::npos) << status;
  }
  // `a` lost its worker, and gets no other.
  void LoseWorker() {
    Begin(300 * kMiB);
    Settle();
    Starve(true);
    Kill();
  }
};

TEST_F(RouterStarved, AWorkerThatCannotBeStartedIsNoFailure) {
  LoseWorker();
  const uint64_t fills = h_->world.fills;
  const uint64_t masters = h_->world.masters.size();
  const uint64_t launches = h_->world.launches;
  h_->RunFor(60 * kSecond);
  EXPECT_NE(h_->StatusOf("a").state(), v1::FAILED);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 1u);
  EXPECT_NE(h_->StatusOf("a").error().find("Too many open files"), std::string::npos);
  EXPECT_GT(h_->world.launches, launches + kFailuresUntilFailed);
  EXPECT_LT(h_->world.launches, launches + 30);
  EXPECT_EQ(h_->world.masters.size(), masters);
  Starve(false);
  Settle();
  EXPECT_EQ(h_->StatusOf("a").state(), v1::WARM);
  EXPECT_EQ(h_->StatusOf("a").error(), "");
  EXPECT_EQ(h_->world.fills, fills);
}

TEST_F(RouterStarved, ARequestWaits) {
  LoseWorker();
  auto client = h_->Generate("a", 2);
  h_->RunFor(10 * kSecond);
  EXPECT_EQ(client->finishes, 0);
  Starve(false);
  ASSERT_TRUE(Done(client));
  EXPECT_EQ(client->status, absl::OkStatus());
}

TEST_F(RouterStarved, WhatHasNoBoundIsTold) {
  LoseWorker();
  ExpectWant(Prefetch("a"));
  auto op = h_->Switch("a");
  ASSERT_TRUE(Done(op));
  ExpectWant(op->status);
}

TEST_F(RouterStarved, AMasterThatCannotBeMadeIsNoFailure) {
  options_.prefetch_at_start = false;
  Begin(300 * kMiB);
  Settle();
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").worker_pid() != 0; }));
  Starve(true);
  for (int i = 0; i < 2 * kFailuresUntilFailed; ++i) {
    const absl::Status status = Ask();
    ExpectWant(status);
    EXPECT_GT(RetryAfter(status), 0);
    EXPECT_NE(h_->StatusOf("a").state(), v1::FAILED);
    h_->RunFor(RetryAfter(status));
  }
  Starve(false);
  EXPECT_EQ(Ask(), absl::OkStatus());
  EXPECT_EQ(h_->StatusOf("a").error(), "");
}

TEST_F(RouterStarved, WhatWasToBeFilledAtStartIsFilledLater) {
  Begin(300 * kMiB);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->world.launches == 3; }));
  Starve(true);
  h_->RunFor(60 * kSecond);
  EXPECT_EQ(h_->world.fills, 0u);
  Starve(false);
  h_->RunFor(20 * kSecond);
  for (const char* name : {"a", "b", "c"}) {
    EXPECT_EQ(h_->StatusOf(name).state(), v1::WARM) << name;
  }
}

TEST_F(RouterStarved, AModelThatHasFailedKeepsItsReason) {
  Begin(300 * kMiB);
  Settle();
  h_->world.rules.faults.dies_at_start = 1;
  Kill();
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::FAILED; }));
  Starve(true);
  const uint64_t launches = h_->world.launches;
  ASSERT_TRUE(h_->RunUntil([&] { return h_->world.launches > launches; }, 400 * kSecond));
  EXPECT_EQ(h_->StatusOf("a").state(), v1::FAILED);
  EXPECT_NE(h_->StatusOf("a").error().find("last words"), std::string::npos);
}

}  // namespace
}  // namespace switchyard::supervisor
