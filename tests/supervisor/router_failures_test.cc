// What becomes of a model whose workers fail, and what is told of it.

#include "supervisor/backoff.h"
#include "supervisor/retry_after.h"
#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

class RouterFailures : public RouterFixture {
 protected:
  void FailForGood() {
    h_->world.rules.faults.dies_at_start = 1;
    Kill();
    ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::FAILED; }));
  }
};

// Three failures of `a`, its worker is back, and `b` has the only place and nothing to do.
class RouterSparing : public RouterFailures {
 protected:
  void SetUp() override {
    Begin(150 * kMiB);
    Settle();
    for (int i = 0; i < kFailuresUntilSpared; ++i) Kill();
    failed_at_ = h_->world.timers.Now();
    Settle();
    ASSERT_NE(h_->StatusOf("a").worker_pid(), 0);
  }
  void BringIn(const std::string& model) {
    auto op = h_->Switch(model, false);
    ASSERT_TRUE(Done(op));
    ASSERT_EQ(op->status, absl::OkStatus());
  }
  void ExpectRefusal(const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    const std::string message(status.message());
    EXPECT_NE(message.find("a has failed 3 times with no request finished in between"),
              std::string::npos)
        << message;
    EXPECT_NE(message.find("last words"), std::string::npos) << message;
    EXPECT_NEAR(RetryAfter(status), failed_at_ + kHealthyAfter - h_->world.timers.Now(), kSecond);
  }
  Nanos failed_at_ = 0;
};

TEST_F(RouterSparing, WhoeverAsksIsToldAtOnceThatNobodyGivesWay) {
  EXPECT_TRUE(Serves()) << "there is room";
  BringIn("b");
  EXPECT_FALSE(Serves());
  EXPECT_NE(h_->StatusOf("a").error().find("last words"), std::string::npos);
  auto refused = h_->Generate("a", 1);
  ASSERT_EQ(refused->finishes, 1);
  ExpectRefusal(refused->status);
  EXPECT_EQ(h_->StatusOf("b").state(), v1::RESIDENT);
}

// At the time that it was told: nothing else happens then.
TEST_F(RouterSparing, ItGetsItsTurnTenMinutesAfterTheLastFailure) {
  BringIn("b");
  auto refused = h_->Generate("a", 1);
  h_->RunFor(RetryAfter(refused->status) - kSecond);
  EXPECT_FALSE(Serves());
  h_->RunFor(2 * kSecond);
  EXPECT_TRUE(Serves());
  EXPECT_EQ(h_->StatusOf("a").error(), "");
  EXPECT_EQ(Ask(), absl::OkStatus());
}

TEST_F(RouterSparing, ItComesInWhereThereIsRoom) {
  BringIn("b");
  h_->router->Unload("b", [](const auto&) {});
  ASSERT_TRUE(h_->RunUntil([&] { return Serves(); }, 10 * kSecond));
  EXPECT_EQ(h_->StatusOf("a").error(), "");
  EXPECT_EQ(Ask(), absl::OkStatus());
}

TEST_F(RouterSparing, AnOperatorMayInsist) {
  BringIn("b");
  auto op = h_->Switch("a", false);
  h_->RunFor(kMillisecond);
  auto client = h_->Generate("a", 1);
  ASSERT_TRUE(Done(op));
  EXPECT_EQ(op->status, absl::OkStatus());
  ASSERT_TRUE(Done(client));
  EXPECT_EQ(client->status, absl::OkStatus());
}

// It fails for the third time while others wait for it.
TEST_F(RouterFailures, WhoWaitsIsToldWhenNobodyGivesWayAnyMore) {
  Begin(150 * kMiB);
  Settle();
  auto busy = h_->Generate("b", 100'000);
  ASSERT_TRUE(h_->RunUntil([&] { return busy->tokens > 0; }));
  for (int i = 1; i < kFailuresUntilSpared; ++i) Kill();
  Settle();
  auto waits = h_->Generate("a", 1);
  h_->RunFor(50 * kMillisecond);
  ASSERT_EQ(waits->finishes, 0);
  Kill();
  h_->RunFor(50 * kMillisecond);
  ASSERT_EQ(waits->finishes, 1);
  EXPECT_EQ(waits->status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(waits->status.message().find("has failed 3 times"), std::string::npos) << waits->status;
  EXPECT_FALSE(h_->world.health["model/a"]);
}

TEST_F(RouterFailures, ALostWorkerComesBackFromItsMaster) {
  Begin(300 * kMiB);
  Settle();
  auto with_output = h_->Generate("a", 10000);
  ASSERT_TRUE(h_->RunUntil([&] { return with_output->tokens > 3; }));
  const uint64_t fills = h_->world.fills;
  h_->world.WorkerOf("a")->Die("test");
  ASSERT_TRUE(Done(with_output));
  EXPECT_EQ(with_output->status.code(), absl::StatusCode::kAborted);
  EXPECT_NE(with_output->status.message().find("last words"), std::string::npos);
  auto next = h_->Generate("a", 3);
  ASSERT_TRUE(Done(next));
  EXPECT_TRUE(next->status.ok()) << next->status;
  EXPECT_EQ(h_->world.fills, fills);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 1u);
}

// What is not free yet of what it had is not ours to give away.
TEST_F(RouterFailures, AfterALostWorkerItIsAskedAtOnceWhatStrangersUse) {
  Begin(300 * kMiB);
  Settle();
  EXPECT_EQ(h_->world.samples, 0u);
  Kill();
  h_->RunFor(100 * kMillisecond);
  EXPECT_EQ(h_->world.samples, 1u);
}

TEST_F(RouterFailures, ARequestThatLostNothingIsResubmittedOnce) {
  Begin(150 * kMiB);
  Settle();
  auto busy = h_->Generate("a", 200);
  ASSERT_TRUE(h_->RunUntil([&] { return busy->tokens > 3; }));
  auto waits = h_->Generate("b", 3);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->world.WorkerOf("b")->sequences() == 1; }));
  h_->world.WorkerOf("b")->Die("test");
  ASSERT_TRUE(Done(waits));
  EXPECT_TRUE(waits->status.ok()) << waits->status;
}

TEST_F(RouterFailures, WhoseSecondWorkerIsLostIsToldWhenToAskAgain) {
  Begin(150 * kMiB);
  Settle();
  auto busy = h_->Generate("a", 100'000);
  ASSERT_TRUE(h_->RunUntil([&] { return busy->tokens > 3; }));
  auto waits = h_->Generate("b", 3);
  for (uint32_t lost = 0; lost < 2; ++lost) {
    ASSERT_TRUE(h_->RunUntil([&] {
      FakeWorker* const worker = h_->world.WorkerOf("b");
      return h_->StatusOf("b").restarts() == lost && worker && worker->sequences() == 1;
    }));
    EXPECT_EQ(waits->finishes, 0);
    h_->world.WorkerOf("b")->Die("test");
  }
  ASSERT_TRUE(Done(waits));
  EXPECT_EQ(waits->status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(waits->status.message().find("the worker of b was lost, ask again"), std::string::npos);
  EXPECT_EQ(RetryAfter(waits->status), kLeastRetry);
}

TEST_F(RouterFailures, FiveFailuresInARowAndAnOperatorRevives) {
  Begin(300 * kMiB);
  Settle();
  h_->world.rules.faults.dies_at_start = 1;
  h_->world.WorkerOf("a")->Die("test");
  h_->RunFor(20 * kSecond);
  auto client = h_->Generate("a", 1);
  ASSERT_TRUE(Done(client));
  EXPECT_EQ(client->status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(h_->StatusOf("a").state(), v1::FAILED);
  EXPECT_NE(h_->StatusOf("a").error().find("last words"), std::string::npos);
  EXPECT_FALSE(h_->world.health["model/a"]);
  h_->world.rules.faults.dies_at_start = 0;
  auto op = h_->Switch("a", false);
  ASSERT_TRUE(Done(op));
  EXPECT_TRUE(op->status.ok()) << op->status;
  EXPECT_TRUE(h_->world.health["model/a"]);
}

TEST_F(RouterFailures, AFinishedRequestBreaksTheRow) {
  auto catalog = Catalog();
  catalog[0].model.mutable_max_wait()->set_seconds(120);  // longer than any back-off
  Begin(300 * kMiB, 1024 * kMiB, catalog);
  for (int i = 0; i < 2 * kFailuresUntilFailed; ++i) {
    EXPECT_EQ(Ask(), absl::OkStatus()) << i;
    Kill();
    EXPECT_NE(h_->StatusOf("a").state(), v1::FAILED) << i;
  }
  EXPECT_EQ(Ask(), absl::OkStatus());
}

TEST_F(RouterFailures, TheRefusalSaysWhatIsTrue) {
  Begin(300 * kMiB);
  Settle();
  FailForGood();
  const absl::Status status = Ask();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  const std::string message(status.message());
  EXPECT_NE(message.find("failed 5 times with no request finished in between"), std::string::npos)
      << message;
  EXPECT_NE(message.find("every 5 minutes"), std::string::npos) << message;
  EXPECT_NE(message.find("last words"), std::string::npos) << message;
  h_->world.rules.faults.dies_at_start = 0;
}

// To whoever names it, and to whoever gets it as the default.
TEST_F(RouterFailures, TheRefusalSaysWhenItIsTriedNext) {
  Begin(300 * kMiB);
  Settle();
  FailForGood();
  const Nanos next = h_->world.timers.Now() + kProbeFailedEvery;
  h_->RunFor(100 * kSecond);
  for (const char* name : {"a", ""}) {
    const absl::Status status = h_->Generate(name, 1)->status;
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_NEAR(RetryAfter(status), next - h_->world.timers.Now(), kSecond) << status;
  }
  h_->world.rules.faults.dies_at_start = 0;
  h_->RunFor(RetryAfter(Ask()) + 5 * kSecond);
  EXPECT_EQ(Ask(), absl::OkStatus());
}

// How long that takes nobody knows: it is not to be asked for all the while.
TEST_F(RouterFailures, WhileItIsTriedTheRefusalSaysAMoment) {
  Begin(300 * kMiB);
  Settle();
  FailForGood();
  const uint64_t launches = h_->world.launches;
  ASSERT_TRUE(h_->RunUntil([&] { return h_->world.launches > launches; }));
  EXPECT_EQ(RetryAfter(h_->Generate("a", 1)->status), kSecond);
  h_->world.rules.faults.dies_at_start = 0;
}

TEST_F(RouterFailures, AFailedModelIsProbedEveryFiveMinutes) {
  Begin(300 * kMiB);
  Settle();
  FailForGood();
  const uint64_t launches = h_->world.launches;
  h_->RunFor(kProbeFailedEvery + kSecond);
  EXPECT_EQ(h_->world.launches, launches + 1);
  EXPECT_EQ(h_->StatusOf("a").state(), v1::FAILED);
  h_->world.rules.faults.dies_at_start = 0;
  h_->RunFor(kProbeFailedEvery + 5 * kSecond);
  EXPECT_NE(h_->StatusOf("a").state(), v1::FAILED);
  EXPECT_TRUE(h_->world.health["model/a"]);
  // It has not shown yet that it works: once more, and it has failed again.
  Kill();
  EXPECT_EQ(h_->StatusOf("a").state(), v1::FAILED);
  h_->RunFor(kProbeFailedEvery + 5 * kSecond);
  EXPECT_EQ(Ask(), absl::OkStatus());
  Kill();
  EXPECT_NE(h_->StatusOf("a").state(), v1::FAILED);
}

// As `switchyard reload` does: what was wrong need not be in any entry.
TEST_F(RouterFailures, WhatHasFailedMayBeTriedAgainAltogether) {
  Begin(300 * kMiB);
  Settle();
  EXPECT_TRUE(h_->router->TryFailedAgain().empty());
  FailForGood();
  h_->world.rules.faults.dies_at_start = 0;
  EXPECT_EQ(h_->router->TryFailedAgain(), std::vector<std::string>{"a"});
  EXPECT_EQ(Ask(), absl::OkStatus());
}

TEST_F(RouterFailures, AnOperatorRevivesAModelWhileItIsProbed) {
  Begin(300 * kMiB);
  Settle();
  FailForGood();
  const uint64_t launches = h_->world.launches;
  h_->world.rules.faults.dies_at_start = 0;
  ASSERT_TRUE(h_->RunUntil([&] { return h_->world.launches > launches; }));
  auto op = h_->Switch("a", false);
  ASSERT_TRUE(Done(op));
  EXPECT_EQ(op->status, absl::OkStatus());
}

// A request would be refused at once; near the end of the back-off it would not, and nothing else
// happens then that health could learn it from.
TEST_F(RouterFailures, HealthIsWhatARequestWouldGetInALongBackOff) {
  auto catalog = Catalog();
  catalog[0].model.mutable_max_wait()->set_seconds(2);
  Begin(300 * kMiB, 1024 * kMiB, catalog);
  Settle();
  h_->world.rules.faults.dies_at_start = 1;
  Kill();
  EXPECT_TRUE(h_->world.health["model/a"]) << "half a second";
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").restarts() == 4; }));
  h_->world.rules.faults.dies_at_start = 0;
  EXPECT_FALSE(h_->world.health["model/a"]) << "3 to 4 s";
  EXPECT_TRUE(h_->world.health[""]) << "by the others";
  auto refused = h_->Generate("a", 1);
  EXPECT_EQ(refused->status.code(), absl::StatusCode::kUnavailable) << refused->status;
  const Nanos accepts_from = h_->world.timers.Now() + RetryAfter(refused->status) - 2 * kSecond;
  const uint64_t launches = h_->world.launches;
  ASSERT_TRUE(h_->RunUntil([&] { return h_->world.health["model/a"]; }));
  EXPECT_NEAR(h_->world.timers.Now(), accepts_from, 100 * kMillisecond);
  EXPECT_EQ(h_->world.launches, launches);
  EXPECT_EQ(h_->Generate("a", 1)->finishes, 0) << "accepted, though its bound may be too short";
  h_->RunFor(kSecond);
  EXPECT_EQ(Ask(), absl::OkStatus());
}

TEST_F(RouterFailures, NobodyIsServedWhileAllBackOffForLong) {
  auto catalog = Catalog();
  catalog.resize(1);
  catalog[0].model.mutable_max_wait()->set_seconds(2);
  Begin(300 * kMiB, 1024 * kMiB, catalog);
  Settle();
  h_->world.rules.faults.dies_at_start = 1;
  Kill();
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").restarts() == 4; }));
  h_->world.rules.faults.dies_at_start = 0;
  EXPECT_FALSE(h_->world.health[""]);
  EXPECT_FALSE(h_->world.health["switchyard.v1.Inference"]);
  EXPECT_TRUE(h_->world.health["switchyard.v1.Control"]);
  h_->RunFor(5 * kSecond);
  EXPECT_TRUE(h_->world.health[""]);
}

TEST_F(RouterFailures, AnErrorThatIsOvercomeIsHistory) {
  Begin(300 * kMiB);
  Settle();
  EXPECT_EQ(h_->StatusOf("a").last_failure(), "");
  Kill();
  EXPECT_NE(h_->StatusOf("a").error().find("last words"), std::string::npos);
  h_->RunFor(30 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").error(), "");
  EXPECT_NE(h_->StatusOf("a").last_failure().find("last words"), std::string::npos);
  EXPECT_NEAR(h_->StatusOf("a").last_failure_age_s(), 30, 2);
}

// What was wrong with a model that is not there any more is history, too.
TEST_F(RouterFailures, AnErrorOfAnUnloadedModelIsHistory) {
  Begin(300 * kMiB);
  Settle();
  h_->world.rules.faults.grow_fails = 1;
  EXPECT_EQ(Ask().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(h_->StatusOf("a").error().find("out of memory"), std::string::npos);
  bool unloaded = false;
  h_->router->Unload("a", [&](const auto& reply) { unloaded = reply.ok(); });
  ASSERT_TRUE(h_->RunUntil([&] { return unloaded; }));
  EXPECT_EQ(h_->StatusOf("a").error(), "");
  EXPECT_NE(h_->StatusOf("a").last_failure().find("out of memory"), std::string::npos);
  h_->world.rules.faults.grow_fails = 0;
}

// But a model that has been given up is still refused, and says why.
TEST_F(RouterFailures, UnloadingAFailedModelDoesNotMendIt) {
  Begin(300 * kMiB);
  Settle();
  FailForGood();
  h_->router->Unload("a", [](const auto&) {});
  Settle();
  EXPECT_EQ(h_->StatusOf("a").state(), v1::FAILED);
  EXPECT_NE(h_->StatusOf("a").error().find("last words"), std::string::npos);
  h_->world.rules.faults.dies_at_start = 0;
}

// Not only when somebody asks: a model is warm as long as it has a master.
TEST_F(RouterFailures, ALostWorkerComesBackUnasked) {
  Begin(300 * kMiB);
  Settle();
  Kill();
  Settle();
  EXPECT_EQ(h_->StatusOf("a").state(), v1::WARM);
}

// It comes while a worker starts; that one fails, and the next comes when the request's time is
// over.
TEST_F(RouterFailures, WhoWaitsForAWorkerIsRefusedOnceTheBackOffIsLongerThanItsBound) {
  auto catalog = Catalog();
  catalog[0].model.mutable_max_wait()->set_seconds(1);
  Begin(300 * kMiB, 1024 * kMiB, catalog);
  Settle();
  h_->world.rules.faults.dies_at_start = 1;
  Kill();
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").restarts() == 3; }));
  h_->world.rules.faults.dies_at_start = 0;
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").worker_pid() != 0; }));
  h_->world.WorkerOf("a")->Die("while it starts");
  auto waits = h_->Generate("a", 1);
  const Nanos asked = h_->world.timers.Now();
  ASSERT_TRUE(Done(waits));
  EXPECT_LT(h_->world.timers.Now() - asked, 100 * kMillisecond);
  EXPECT_EQ(waits->status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(waits->status.message().find("is started again in"), absl::string_view::npos);
  EXPECT_GT(RetryAfter(waits->status), kSecond);
}

TEST(Backoff, DoublesUpToAMinuteLessItsJitter) {
  EXPECT_EQ(BackoffDelay(0, 0), 0);
  EXPECT_EQ(BackoffDelay(1, 0), kSecond / 2);
  EXPECT_EQ(BackoffDelay(4, 0), 4 * kSecond);
  EXPECT_EQ(BackoffDelay(8, 0), 60 * kSecond);
  EXPECT_EQ(BackoffDelay(1000, 0), 60 * kSecond);
  EXPECT_EQ(BackoffDelay(4, 1), 3 * kSecond);
  double least = 1, most = 0;
  for (uint64_t failure = 0; failure < 100; ++failure) {
    const double jitter = BackoffJitter("a", failure);
    ASSERT_GE(jitter, 0);
    ASSERT_LT(jitter, 1);
    least = std::min(least, jitter);
    most = std::max(most, jitter);
  }
  EXPECT_LT(least, 0.1);
  EXPECT_GT(most, 0.9);
  EXPECT_NE(BackoffJitter("a", 1), BackoffJitter("b", 1));
}

TEST(Backoff, TenMinutesOfHealthStartAfresh) {
  EXPECT_EQ(FailuresAfter(3, kHealthyAfter - 1), 4);
  EXPECT_EQ(FailuresAfter(3, kHealthyAfter), 1);
}

// ---- A prefetch has no deadline of its own, and no request's bound.

TEST_F(RouterFailures, APrefetchEndsWhenNoWorkerCanBeStarted) {
  options_.prefetch_at_start = false;
  Make(300 * kMiB, 1024 * kMiB, Catalog());
  h_->world.rules.faults.launch_fails = 1;
  h_->router->Start();
  EXPECT_EQ(Prefetch("a").code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(RouterFailures, APrefetchEndsWhenTheWorkerCannotBeEnded) {
  options_.prefetch_at_start = false;
  Begin(300 * kMiB);
  Settle();
  h_->world.WorkerOf("a")->Hang();
  h_->world.rules.faults.unkillable = 1;
  const Nanos then = h_->world.timers.Now();
  EXPECT_EQ(Prefetch("a").code(), absl::StatusCode::kUnavailable);
  EXPECT_LE(h_->world.timers.Now() - then, 16 * kSecond) << "killed after 5 s, given up after 10";
}

TEST_F(RouterFailures, APrefetchEndsWhenItsModelIsReplacedByOneThatCannotBeServed) {
  options_.prefetch_at_start = false;
  Begin(300 * kMiB);
  Settle();
  auto bad = Catalog();
  bad[0].problem = absl::InvalidArgumentError("no checkpoint");
  const auto reply = h_->router->Reload(bad);
  ASSERT_TRUE(reply.ok()) << reply.status();
  ASSERT_EQ(reply->problems_size(), 1) << "who asked for the reload is told";
  EXPECT_EQ(reply->problems(0).model(), "a");
  EXPECT_EQ(reply->problems(0).reason(), "no checkpoint");
  EXPECT_EQ(Prefetch("a"), absl::FailedPreconditionError("no checkpoint. Once that is mended, "
                                                         "`switchyard reload` looks again"));
}

TEST_F(RouterFailures, WhatDoesNotFitIsNotSaidToBeMendedByAReloadAlone) {
  auto bad = Catalog();
  bad[0].problem = absl::FailedPreconditionError("it needs more. Raise host_memory");
  Begin(300 * kMiB, 1024 * kMiB, bad);
  EXPECT_EQ(
      h_->Generate("a", 1)->status,
      absl::FailedPreconditionError(
          "it needs more. Raise host_memory. `switchyard reload` looks again at its entry, and "
          "at the sizes of `devices` in the file of --config; host_memory and --device take a "
          "restart"));
}

TEST_F(RouterFailures, WhatCouldNotBePlannedIsLookedAtAgainByAReload) {
  auto bad = Catalog();
  bad[0].problem = absl::InvalidArgumentError("a header of 9 bytes: truncated?");
  Begin(300 * kMiB, 1024 * kMiB, bad);
  Settle();
  auto refused = h_->Switch("a", /*make_default=*/false);
  ASSERT_TRUE(Done(refused));
  EXPECT_EQ(refused->status,
            absl::FailedPreconditionError("a header of 9 bytes: truncated? Once that is mended, "
                                          "`switchyard reload` looks again"));
  EXPECT_EQ(h_->Generate("a", 1)->status, refused->status);
  ASSERT_TRUE(h_->router->Reload(Catalog()).ok());
  auto loaded = h_->Switch("a", /*make_default=*/false);
  ASSERT_TRUE(Done(loaded));
  EXPECT_EQ(loaded->status, absl::OkStatus());
}

}  // namespace
}  // namespace switchyard::supervisor
