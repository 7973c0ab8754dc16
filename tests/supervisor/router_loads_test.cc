// What becomes of a model that cannot be loaded, though its worker lives.

#include "supervisor/backoff.h"
#include "supervisor/retry_after.h"
#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

class RouterLoads : public RouterFixture {
 protected:
  void SetUp() override { options_.prefetch_at_start = false; }

  v1::ModelState State(const std::string& model) { return h_->StatusOf(model).state(); }
  uint64_t Tries() { return h_->world.failed_loads["a"]; }
  // Asks until `a` has been given up, which nothing keeps from being tried.
  void FailForGood() {
    for (int i = 0; i < kFailuresUntilFailed; ++i) ASSERT_FALSE(Ask().ok());
    ASSERT_EQ(State("a"), v1::FAILED);
    ASSERT_EQ(Tries(), static_cast<uint64_t>(kFailuresUntilFailed));
  }
  // How often `b`, which is asked each time, has had to give way to `a`.
  int Evictions(int asks) {
    int evictions = 0;
    bool there = false;
    for (int i = 0; i < asks; ++i) {
      auto healthy = h_->Generate("b", 2);
      EXPECT_TRUE(Done(healthy));
      EXPECT_EQ(healthy->status, absl::OkStatus());
      auto fails = h_->Generate("a", 2);
      h_->RunUntil([&] {
        const bool was = std::exchange(there, State("b") == v1::RESIDENT);
        evictions += was && !there ? 1 : 0;
        return fails->finishes > 0;
      });
      EXPECT_FALSE(fails->status.ok());
    }
    return evictions;
  }
};

// What every other test rests on: each failure is one, be it of a fill or of a growth, or of the
// growth that follows a fill.
TEST_F(RouterLoads, AModelThatCannotBeReadIsTriedLaterAndLaterAndThenGivenUp) {
  Begin(300 * kMiB);
  Settle();
  h_->world.unreadable.insert("a");
  Nanos last = 0;
  for (int failure = 1; failure < kFailuresUntilFailed; ++failure) {
    const absl::Status status = Ask();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_GE(h_->world.timers.Now() - last, BackoffDelay(failure - 1, 1));
    last = h_->world.timers.Now();
    EXPECT_GE(RetryAfter(status), BackoffDelay(failure, 1));
    EXPECT_LE(RetryAfter(status), BackoffDelay(failure, 0));
    EXPECT_EQ(Tries(), static_cast<uint64_t>(failure));
    EXPECT_NE(h_->StatusOf("a").error().find("truncated checkpoint"), std::string::npos);
  }
  const absl::Status status = Ask();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("has failed 5 times"), std::string::npos) << status;
  EXPECT_EQ(RetryAfter(status), kProbeFailedEvery);
  EXPECT_EQ(State("a"), v1::FAILED);
  EXPECT_NE(h_->StatusOf("a").error().find("truncated checkpoint"), std::string::npos);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
  EXPECT_FALSE(Serves("a"));
  EXPECT_EQ(Ask().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Tries(), 5u);
}

TEST_F(RouterLoads, AModelWhoseLeaseCannotGrowLikewise) {
  Begin(300 * kMiB);
  Settle();
  h_->world.unloadable.insert("a");
  FailForGood();
  EXPECT_NE(h_->StatusOf("a").error().find("out of memory"), std::string::npos);
  EXPECT_FALSE(Serves("a"));
  Settle();
  EXPECT_EQ(h_->StatusOf("a").worker_pid(), 0) << "it keeps nothing of the device";
}

// Be it for its master, or for its lease on a device that is the host's memory.
TEST_F(RouterLoads, AModelForWhichTheHostHasNoMemoryIsTriedLaterAndLaterAndNeverGivenUp) {
  for (const bool fills : {true, false}) {
    Begin(300 * kMiB);
    Settle();
    if (!fills) {
      ASSERT_EQ(Prefetch("a"), absl::OkStatus());
    }
    h_->world.host_short.insert("a");
    Nanos last = 0;
    for (int failure = 1; failure <= kFailuresUntilFailed + 1; ++failure) {
      const absl::Status status = Ask();
      EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
      EXPECT_GE(h_->world.timers.Now() - last, BackoffDelay(failure - 1, 1));
      last = h_->world.timers.Now();
      EXPECT_GE(RetryAfter(status), BackoffDelay(failure, 1));
      EXPECT_LE(RetryAfter(status), BackoffDelay(failure, 0));
      EXPECT_EQ(Tries(), static_cast<uint64_t>(failure));
      EXPECT_NE(State("a"), v1::FAILED);
      EXPECT_EQ(h_->StatusOf("a").error(), std::string(status.message()));
    }
    // However long it lasts, whoever asks when it is over is served.
    for (int i = 0; i < 5; ++i) EXPECT_LE(RetryAfter(Ask()), 16 * kSecond);
    h_->world.host_short.clear();
    EXPECT_EQ(Ask(), absl::OkStatus());
    EXPECT_EQ(h_->StatusOf("a").error(), "");
  }
}

TEST_F(RouterLoads, AShortageOfTheHostAddsNothingToARowOfFailures) {
  Begin(300 * kMiB);
  Settle();
  for (int i = 1; i < kFailuresUntilFailed; ++i) {
    for (std::set<std::string>* why : {&h_->world.unreadable, &h_->world.host_short}) {
      why->insert("a");
      EXPECT_FALSE(Ask().ok());
      why->clear();
    }
  }
  EXPECT_NE(State("a"), v1::FAILED);
  h_->world.unreadable.insert("a");
  EXPECT_FALSE(Ask().ok());
  EXPECT_EQ(State("a"), v1::FAILED);
}

// The growth that followed the filling has failed before that was over.
TEST_F(RouterLoads, AMasterThatIsCompleteDoesNotMendItsGrowth) {
  Begin(300 * kMiB);
  Settle();
  h_->world.unloadable.insert("a");
  EXPECT_FALSE(Ask().ok());
  Settle();
  EXPECT_EQ(State("a"), v1::WARM);
  EXPECT_NE(h_->StatusOf("a").error().find("out of memory"), std::string::npos);
}

TEST_F(RouterLoads, NobodyGivesWayASecondTimeToWhatTheHostHasNoMemoryToFill) {
  Begin(150 * kMiB);
  Settle();
  h_->world.host_short.insert("a");
  EXPECT_LE(Evictions(6), 1);
}

TEST_F(RouterLoads, NobodyGivesWayASecondTimeBeforeAMasterIsComplete) {
  Begin(150 * kMiB);
  Settle();
  h_->world.unreadable.insert("a");
  EXPECT_LE(Evictions(10), 1);
  EXPECT_LE(Tries(), 5u);
}

TEST_F(RouterLoads, NobodyGivesWayAfterThreeGrowthsThatFailed) {
  Begin(150 * kMiB);
  Settle();
  h_->world.unloadable.insert("a");
  EXPECT_LE(Evictions(10), kFailuresUntilSpared);
  EXPECT_EQ(Tries(), static_cast<uint64_t>(kFailuresUntilSpared));
  EXPECT_FALSE(Serves("a"));
  const absl::Status status = Ask();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("gives way to it"), std::string::npos) << status;
  EXPECT_GT(RetryAfter(status), 500 * kSecond);
}

TEST_F(RouterLoads, WhatIsMendedComesBackByItself) {
  for (const bool reads : {true, false}) {
    Begin(300 * kMiB);
    Settle();
    std::set<std::string>& broken = reads ? h_->world.unreadable : h_->world.unloadable;
    broken.insert("a");
    FailForGood();
    h_->RunFor(kProbeFailedEvery + 5 * kSecond);
    EXPECT_EQ(Tries(), 6u) << "its worker lives, which is no proof";
    EXPECT_EQ(State("a"), v1::FAILED);
    EXPECT_FALSE(Serves("a"));
    broken.clear();
    h_->RunFor(kProbeFailedEvery + 5 * kSecond);
    EXPECT_EQ(State("a"), v1::RESIDENT);
    EXPECT_EQ(h_->StatusOf("a").error(), "");
    EXPECT_TRUE(Serves("a"));
    EXPECT_EQ(Ask(), absl::OkStatus());
  }
}

// Then it is as if it had been tried before: when the ten minutes are over, one try, and no more.
TEST_F(RouterLoads, NobodyGivesWayForATrial) {
  Begin(150 * kMiB);
  Settle();
  h_->world.unloadable.insert("a");
  FailForGood();
  const Nanos failed_at = h_->world.timers.Now();
  ASSERT_TRUE(Done(h_->Switch("b")));
  h_->RunFor(kProbeFailedEvery + 5 * kSecond);
  EXPECT_EQ(Tries(), 5u);
  EXPECT_EQ(State("b"), v1::RESIDENT);
  EXPECT_EQ(State("a"), v1::WARM);
  EXPECT_FALSE(Serves("a"));
  const absl::Status status = Ask();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  EXPECT_NEAR(RetryAfter(status), failed_at + kHealthyAfter - h_->world.timers.Now(), kSecond);
  h_->RunFor(RetryAfter(status) + kSecond);
  EXPECT_EQ(Ask().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Tries(), 6u);
  EXPECT_EQ(State("a"), v1::FAILED);
}

TEST_F(RouterLoads, NoMasterIsDroppedForATrial) {
  Begin(300 * kMiB, 100 * kMiB);
  Settle();
  h_->world.unreadable.insert("a");
  FailForGood();
  ASSERT_EQ(Prefetch("b"), absl::OkStatus());
  h_->RunFor(kProbeFailedEvery + 5 * kSecond);
  EXPECT_EQ(h_->StatusOf("b").master_bytes(), 80 * kMiB);
  EXPECT_EQ(Tries(), 5u);
  EXPECT_NE(State("a"), v1::FAILED);
  EXPECT_EQ(Ask().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Tries(), 6u);
}

// What waits when it is given up is told, too, and nothing keeps it from ending.
TEST_F(RouterLoads, TheFifthFailureEndsAllThatWaits) {
  Begin(300 * kMiB);
  Settle();
  h_->world.unreadable.insert("a");
  for (int i = 1; i < kFailuresUntilFailed; ++i) ASSERT_FALSE(Ask().ok());
  auto client = h_->Generate("a", 1);
  auto op_prefetch = std::make_shared<std::optional<absl::Status>>();
  h_->router->Prefetch("a", [op_prefetch](const auto& reply) { *op_prefetch = reply.status(); });
  ASSERT_TRUE(h_->RunUntil([&] { return State("a") == v1::FAILED; }));
  EXPECT_EQ(client->finishes, 1);
  EXPECT_TRUE(op_prefetch->has_value());
}

TEST_F(RouterLoads, AnOperatorCutsTheBackOffShortAndForgives) {
  Begin(300 * kMiB);
  Settle();
  h_->world.unreadable.insert("a");
  for (int i = 1; i < kFailuresUntilFailed; ++i) ASSERT_FALSE(Ask().ok());
  h_->world.unreadable.clear();
  const Nanos asked = h_->world.timers.Now();
  auto op = h_->Switch("a", false);
  ASSERT_TRUE(Done(op));
  EXPECT_EQ(op->status, absl::OkStatus());
  EXPECT_LT(h_->world.timers.Now() - asked, BackoffDelay(kFailuresUntilFailed - 1, 1));
}

TEST_F(RouterLoads, AnOperatorRevivesWhatHasFailed) {
  Begin(300 * kMiB);
  Settle();
  h_->world.unloadable.insert("a");
  FailForGood();
  h_->world.unloadable.clear();
  auto op = h_->Switch("a", false);
  ASSERT_TRUE(Done(op));
  EXPECT_EQ(op->status, absl::OkStatus());
  EXPECT_TRUE(Serves("a"));
}

TEST_F(RouterLoads, AReloadTriesAgainWhatHasFailed) {
  Begin(300 * kMiB);
  Settle();
  h_->world.unreadable.insert("a");
  FailForGood();
  h_->world.unreadable.clear();
  EXPECT_EQ(h_->router->TryFailedAgain(), std::vector<std::string>{"a"});
  EXPECT_EQ(Ask(), absl::OkStatus());
}

// Before anything has been asked of it.
TEST_F(RouterLoads, ALoadThatWorksBreaksTheRow) {
  Begin(150 * kMiB);
  Settle();
  for (int round = 0; round < 3; ++round) {
    h_->world.unloadable.insert("a");
    for (int i = 1; i < kFailuresUntilSpared; ++i) EXPECT_FALSE(Ask().ok());
    h_->world.unloadable.clear();
    h_->RunFor(5 * kSecond);  // a load that is asked for earlier forgives all of it
    ASSERT_TRUE(Done(h_->Switch("a")));
    ASSERT_TRUE(Done(h_->Switch("b")));
  }
  EXPECT_NE(State("a"), v1::FAILED);
}

TEST_F(RouterLoads, FailuresOfWorkersAndOfLoadsAreInOneRow) {
  Begin(300 * kMiB);
  Settle();
  h_->world.unloadable.insert("a");
  for (int i = 1; i < kFailuresUntilSpared; ++i) EXPECT_FALSE(Ask().ok());
  for (int i = kFailuresUntilSpared; i < kFailuresUntilFailed; ++i) Kill();
  EXPECT_NE(State("a"), v1::FAILED);
  EXPECT_FALSE(Ask().ok());
  EXPECT_EQ(State("a"), v1::FAILED);
}

TEST_F(RouterLoads, WhoWouldBeLoadedTooLateIsToldSoAndHealthToo) {
  auto catalog = Catalog();
  catalog[0].model.mutable_max_wait()->set_seconds(1);
  Begin(300 * kMiB, 1024 * kMiB, catalog);
  Settle();
  h_->world.unreadable.insert("a");
  for (int i = 0; i < 3; ++i) {
    h_->RunFor(5 * kSecond);
    ASSERT_EQ(Ask().code(), absl::StatusCode::kDataLoss);
  }
  EXPECT_FALSE(Serves("a"));
  auto refused = h_->Generate("a", 1);
  ASSERT_EQ(refused->finishes, 1);
  EXPECT_EQ(refused->status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(refused->status.message().find("a is loaded again in"), 0u) << refused->status;
  EXPECT_GT(RetryAfter(refused->status), kSecond);
  EXPECT_LE(RetryAfter(refused->status), BackoffDelay(3, 0));
  h_->world.unreadable.clear();
  h_->RunFor(RetryAfter(refused->status));
  EXPECT_TRUE(Serves("a"));
  EXPECT_EQ(Ask(), absl::OkStatus());
}

// Health that ended here would keep away whoever could find out that it is mended.
TEST_F(RouterLoads, OnlyARequestTriesALoadAgainSoThatItServesInAShortBackOff) {
  Begin(300 * kMiB);
  Settle();
  h_->world.unreadable.insert("a");
  ASSERT_EQ(Ask().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(Serves("a"));
  EXPECT_EQ(h_->Generate("a", 1)->finishes, 0) << "it waits";
  ASSERT_TRUE(h_->RunUntil([&] { return Tries() == 2; }));
  h_->world.unreadable.clear();
  h_->RunFor(60 * kSecond);
  EXPECT_NE(State("a"), v1::RESIDENT);
  EXPECT_TRUE(Serves("a"));
  EXPECT_EQ(Ask(), absl::OkStatus());
}

// ---- What is not the model's fault.

// It was there for it when the growth began; the next sample shows who has it now.
TEST_F(RouterLoads, MemoryThatStrangersTookIsNotTheModelsFault) {
  Begin(150 * kMiB);
  Settle();
  for (int i = 0; i < 2 * kFailuresUntilFailed; ++i) {
    h_->world.rules.faults.grow_fails = 1;
    EXPECT_EQ(Ask().code(), absl::StatusCode::kResourceExhausted);
    h_->Foreign("cpu", 100 * kMiB);
    h_->world.rules.faults.grow_fails = 0;
    h_->RunFor(kSecond);
    h_->Foreign("cpu", 0);
    ASSERT_NE(State("a"), v1::FAILED) << i;
  }
  EXPECT_EQ(Ask(), absl::OkStatus());
}

// It lacks nothing that it needs now.
TEST_F(RouterLoads, AResidentModelWhoseMasterCannotBeReadServesOn) {
  Begin(300 * kMiB, 100 * kMiB);
  ASSERT_EQ(Ask(), absl::OkStatus());
  ASSERT_EQ(Prefetch("b"), absl::OkStatus());  // takes the place of its master
  h_->world.unreadable.insert("a");
  std::vector<std::shared_ptr<ClientView>> clients;  // more than run at once
  for (int i = 0; i < 20; ++i) clients.push_back(h_->Generate("a", 300));
  for (int i = 0; i < 2 * kFailuresUntilFailed; ++i) {
    EXPECT_EQ(Prefetch("a").code(), absl::StatusCode::kDataLoss) << i;
  }
  for (const auto& client : clients) {
    ASSERT_TRUE(Done(client));
    EXPECT_EQ(client->status, absl::OkStatus());
  }
  EXPECT_EQ(State("a"), v1::RESIDENT);
  EXPECT_TRUE(Serves("a"));
  EXPECT_EQ(Ask(), absl::OkStatus());
}

// Others hold the host's memory: it waits, and that is all.
TEST_F(RouterLoads, HostMemoryThatOthersHoldIsNotTheModelsFault) {
  Begin(300 * kMiB, 100 * kMiB);
  ASSERT_TRUE(Done(h_->Switch("b")));
  h_->world.rules.bytes_per_second = kMiB;
  auto busy = h_->Switch("c");  // its master is in use for 80 s
  h_->RunFor(5 * kSecond);
  auto waits = h_->Generate("a", 1);
  h_->RunFor(20 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").last_failure(), "");
  h_->world.rules.bytes_per_second = 0;
  ASSERT_TRUE(Done(busy));
  ASSERT_TRUE(Done(waits));
  EXPECT_NE(State("a"), v1::FAILED);
}

TEST_F(RouterLoads, OneWhoseMasterCannotBeMadeIsTriedAgain) {
  Begin(300 * kMiB);
  Settle();
  h_->world.rules.faults.no_memfd = 1;
  const absl::Status status = Ask();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(status.message(), "no memory for the master of a: no such system call");
  EXPECT_EQ(h_->router->HostAccount().used(), 0u);
  h_->world.rules.faults.no_memfd = 0;
  h_->RunFor(kSecond);
  EXPECT_EQ(Ask(), absl::OkStatus());
}

TEST_F(RouterLoads, AWorkerThatCannotBeGivenItsMasterIsReplaced) {
  Begin(300 * kMiB);
  Settle();
  h_->world.rules.faults.send_fails = 1;
  auto waits = h_->Generate("a", 2);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").restarts() == 1; }, kSecond));
  EXPECT_EQ(h_->StatusOf("a").last_failure().find("cannot be given its master: sendmsg"), 0u)
      << h_->StatusOf("a").last_failure();
  h_->world.rules.faults.send_fails = 0;
  ASSERT_TRUE(Done(waits));
  EXPECT_EQ(waits->status, absl::OkStatus());
}

}  // namespace
}  // namespace switchyard::supervisor
