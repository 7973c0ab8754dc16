// Whether work gets done is asked of idle models, and what is told of those that do none.

#include <algorithm>

#include "supervisor/backoff.h"
#include "supervisor/retry_after.h"
#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

class RouterProbes : public RouterFixture {
 protected:
  void BeginWith(std::vector<ModelEntry> catalog = Catalog()) {
    options_.probe_interval = 10 * kSecond;
    Begin(150 * kMiB, 1024 * kMiB, std::move(catalog));
    Settle();
    ASSERT_TRUE(Done(h_->Switch("a")));
  }
  bool Serves() { return h_->world.health["model/a"]; }
  bool Becomes(bool serving) {
    return h_->RunUntil([&] { return Serves() == serving; }, 60 * kSecond);
  }
  int64_t Answers() {
    return std::count_if(h_->calls.begin(), h_->calls.end(),
                         [](const auto& call) { return call->status.ok() && call->finishes > 0; });
  }

  // Two whose workers run no step until `works_from` take the shortest turns there are. After
  // how long the first of them has lost its worker; 0: neither has.
  Nanos FirstLoss(Nanos works_from) {
    options_.probe_interval = 10 * kSecond;
    rules_.latency = kMillisecond;
    auto catalog = Catalog();
    for (ModelEntry& entry : catalog) entry.model.mutable_max_wait()->set_seconds(86400);
    Begin(195 * kMiB, 1024 * kMiB, std::move(catalog));
    Settle();
    const Nanos began = h_->world.timers.Now();
    const auto past = [&] { return h_->world.timers.Now() - began; };
    FakeWorker* workers[] = {h_->world.WorkerOf("a"), h_->world.WorkerOf("b")};
    for (FakeWorker* worker : workers) worker->Wedge();
    auto a = h_->Generate("a", 3);
    auto b = h_->Generate("b", 3);
    const auto lost = [&] { return h_->StatusOf("a").restarts() + h_->StatusOf("b").restarts(); };
    while (lost() == 0 && past() < works_from) h_->RunFor(kMillisecond);
    if (lost() > 0) return past();
    for (FakeWorker* worker : workers) worker->Unwedge();
    h_->RunFor(30 * kSecond);
    return lost() > 0 ? past() : 0;
  }
};

TEST_F(RouterProbes, OnlyResidentModelsAreProbedAndItIsNoUse) {
  BeginWith();
  h_->RunFor(100 * kSecond);
  EXPECT_GE(h_->world.submits, 9u);
  EXPECT_LE(h_->world.submits, 14u);  // an interval, less a quarter at most
  const v1::ModelStatus a = h_->StatusOf("a");
  EXPECT_EQ(a.requests() + a.tokens() + a.prompt_tokens(), 0u);
  EXPECT_GE(a.idle_s(), 100);
  for (const char* name : {"b", "c"}) EXPECT_EQ(h_->StatusOf(name).loads(), 0u) << name;
  EXPECT_TRUE(Serves());
}

TEST_F(RouterProbes, AnswersAreProof) {
  BeginWith();
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(Done(h_->Generate("a", 2)));
    h_->RunFor(5 * kSecond);
  }
  EXPECT_EQ(h_->world.submits, 20u);
}

TEST_F(RouterProbes, AProbedModelStillFallsAsleepAndGivesWay) {
  auto catalog = Catalog();
  catalog[0].model.mutable_idle_timeout()->set_seconds(35);
  BeginWith(catalog);
  h_->RunFor(36 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").state(), v1::WARM);
  const uint64_t submits = h_->world.submits;
  h_->RunFor(100 * kSecond);
  EXPECT_EQ(h_->world.submits, submits);
}

TEST_F(RouterProbes, AnIntervalOfZeroIsNever) {
  options_.probe_interval = 0;
  Begin(150 * kMiB);
  ASSERT_TRUE(Done(h_->Switch("a")));
  h_->RunFor(1000 * kSecond);
  EXPECT_EQ(h_->world.submits, 0u);
}

// That is of probes for no other reason than that time has passed.
TEST_F(RouterProbes, DamageIsFoundOutThoughTheIntervalIsZero) {
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

TEST_F(RouterProbes, WhoDoesNotReadPutsOffTheProbeAfterDamageThoughTheIntervalIsZero) {
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

TEST_F(RouterProbes, OneThatRunsNoStepIsUnhealthyUntilItsNextWorkerIsThere) {
  BeginWith();
  h_->world.WorkerOf("a")->Wedge();
  ASSERT_TRUE(Becomes(false));
  EXPECT_EQ(h_->StatusOf("a").error(),
            "hung: a self-probe had no answer and no step ended for 5 s");
  ASSERT_TRUE(Becomes(true));
  EXPECT_EQ(h_->StatusOf("a").restarts(), 1u);
  EXPECT_EQ(h_->StatusOf("a").error(), "");
  EXPECT_NE(h_->StatusOf("a").last_failure().find("self-probe"), std::string::npos);
}

TEST_F(RouterProbes, AClientsRequestFindsItOutAsWell) {
  BeginWith();
  h_->world.WorkerOf("a")->Wedge();
  auto client = h_->Generate("a", 3);
  ASSERT_TRUE(h_->RunUntil([&] { return client->finishes > 0; }, 30 * kSecond));
  EXPECT_TRUE(client->status.ok()) << client->status;  // of the next worker
}

// It cannot be probed, since it starts nothing new, nor paused, for want of host memory.
TEST_F(RouterProbes, OneThatDrainsWithoutRunningStepsIsFoundOut) {
  options_.probe_interval = 10 * kSecond;
  const auto [busy, op] = DrainLong();
  h_->world.WorkerOf("a")->Wedge();
  EXPECT_TRUE(Done(op));
  EXPECT_TRUE(op->status.ok()) << op->status;
  EXPECT_EQ(busy->status.code(), absl::StatusCode::kAborted);
}

// Neither is resident for long enough at a time.
TEST_F(RouterProbes, TwoThatRunNoStepsAndTakeTurnsAreFoundOut) {
  options_.probe_interval = 20 * kSecond;
  Begin(150 * kMiB);
  Settle();
  for (const char* name : {"a", "b"}) h_->world.WorkerOf(name)->Wedge();
  auto a = h_->Generate("a", 3);
  auto b = h_->Generate("b", 3);
  ASSERT_TRUE(Done(a));
  ASSERT_TRUE(Done(b));
  EXPECT_TRUE(a->status.ok()) << a->status;
  EXPECT_TRUE(b->status.ok()) << b->status;
}

// Only a pool goes to and fro, so that a turn is the shortest there is: none may be too short to
// judge a probe in.
TEST_F(RouterProbes, TwoThatRunNoStepsAreFoundOutHoweverShortTheirTurnsAre) {
  options_.probe_interval = 10 * kSecond;
  options_.devices = {Device{"cpu", 195 * kMiB, 0}};
  options_.host_budget_bytes = 1024 * kMiB;
  rules_.latency = 20 * kMillisecond;
  auto catalog = Catalog();
  for (ModelEntry& entry : catalog) entry.model.mutable_max_wait()->set_seconds(86400);
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    h_ = std::make_unique<RouterHarness>(seed, rules_, options_, catalog);
    h_->router->Start();
    Settle();
    for (const char* name : {"a", "b"}) h_->world.WorkerOf(name)->Wedge();
    for (const auto& client : {h_->Generate("a", 3), h_->Generate("b", 3)}) {
      ASSERT_TRUE(Done(client)) << seed;
      EXPECT_TRUE(client->status.ok()) << seed << ": " << client->status;
    }
  }
}

// Its time was used up by those before it, which were stopped; but the worker may work by now.
TEST_F(RouterProbes, EvenTheLastProbeHasTheChanceOfAnAnswer) {
  const Nanos lost = FirstLoss(300 * kSecond);
  ASSERT_GT(lost, 0);
  EXPECT_EQ(FirstLoss(lost - 30 * kMillisecond), 0);
}

TEST_F(RouterProbes, WhatIsPinnedProvesItselfWhenItIsBack) {
  BeginWith();
  ASSERT_EQ(h_->router->Pin("a", true), absl::OkStatus());
  h_->world.WorkerOf("a")->Wedge();
  ASSERT_TRUE(Becomes(false));
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::RESIDENT; }));
  EXPECT_FALSE(Serves());
  EXPECT_NE(h_->StatusOf("a").error(), "");
  const Nanos back = h_->world.timers.Now();
  ASSERT_TRUE(Becomes(true));
  EXPECT_LT(h_->world.timers.Now() - back, kSecond);
  EXPECT_EQ(h_->StatusOf("a").error(), "");
}

TEST_F(RouterProbes, TheServiceIsServedAsLongAsOneModelIs) {
  auto catalog = Catalog();
  catalog.resize(2);
  BeginWith(catalog);
  h_->world.WorkerOf("a")->Wedge();
  ASSERT_TRUE(Becomes(false));
  EXPECT_TRUE(h_->world.health[""]);
  ASSERT_TRUE(Becomes(true));
  ASSERT_TRUE(h_->router->Reload({catalog[0]}).ok());
  ASSERT_TRUE(Done(h_->Switch("a")));
  h_->world.WorkerOf("a")->Wedge();
  ASSERT_TRUE(Becomes(false));
  EXPECT_FALSE(h_->world.health[""]);
  EXPECT_FALSE(h_->world.health["switchyard.v1.Inference"]);
  EXPECT_TRUE(h_->world.health["switchyard.v1.Control"]);
  ASSERT_TRUE(Becomes(true));
  EXPECT_TRUE(h_->world.health[""]);
}

TEST_F(RouterProbes, OneThatHangsIsUnhealthy) {
  BeginWith();
  h_->world.WorkerOf("a")->Hang();
  ASSERT_TRUE(Becomes(false));
  EXPECT_NE(h_->StatusOf("a").error().find("heartbeat"), std::string::npos);
  ASSERT_TRUE(Becomes(true));
}

// It may keep the only place in the batch for as long as it likes: that says nothing of the worker.
TEST_F(RouterProbes, AClientThatDoesNotReadIsNoReasonToDoubt) {
  options_.sink_timeout = 1000 * kSecond;
  BeginWith();
  h_->world.rules.max_sequences = 1;
  auto client = h_->Generate("a", 100);
  client->reads = false;
  h_->RunFor(200 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
  h_->Read(client);
  EXPECT_TRUE(Done(client));
  EXPECT_TRUE(client->status.ok()) << client->status;
}

// It stands in one line with what clients ask of the tokenizer.
TEST_F(RouterProbes, AProbeThatWaitsBehindACorpusIsNotTakenForHung) {
  BeginWith();
  h_->world.rules.validates = 3 * kSecond;
  for (int i = 0; i < 20; ++i) h_->Tokenize("a");
  ASSERT_TRUE(h_->RunUntil([&] { return Answers() == 20; }, 61 * kSecond));
  h_->RunFor(20 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
  h_->world.rules.validates = 30 * kSecond;  // one call alone
  h_->Tokenize("a");
  h_->RunFor(kSecond);
  h_->world.rules.validates = 0;
  h_->RunFor(40 * kSecond);
  EXPECT_EQ(Answers(), 21);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
}

TEST_F(RouterProbes, AProbeThatWaitsBehindALargePromptIsNotTakenForHung) {
  BeginWith();
  h_->world.rules.validates = 30 * kSecond;
  auto client = h_->Generate("a", 1);
  h_->RunFor(kSecond);
  h_->world.rules.validates = 0;
  ASSERT_TRUE(Done(client));
  EXPECT_TRUE(client->status.ok()) << client->status;
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
}

// The worker looks at it to the end all the same.
TEST_F(RouterProbes, AProbeThatWaitsBehindACancelledPromptIsNotTakenForHung) {
  BeginWith();
  h_->world.rules.validates = 30 * kSecond;
  auto client = h_->Generate("a", 1);
  h_->RunFor(kSecond);
  h_->world.rules.validates = 0;
  h_->Cancel(client);
  h_->RunFor(40 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
}

TEST_F(RouterProbes, OneThatIsNotEvenAcceptedThoughNobodyElseAsksIsHung) {
  BeginWith();
  h_->world.rules.validates = 1000 * kSecond;
  ASSERT_TRUE(h_->RunUntil([&] { return !Serves(); }, 16 * kSecond));
  EXPECT_NE(h_->StatusOf("a").error().find("self-probe"), std::string::npos);
}

// Whoever waits is no excuse for ever.
TEST_F(RouterProbes, OneThatLooksAtNothingAnyMoreIsFoundOutThoughClientsWait) {
  BeginWith();
  h_->world.rules.validates = 1000 * kSecond;
  h_->Tokenize("a");
  h_->RunFor(kSecond);
  ASSERT_TRUE(h_->RunUntil([&] { return !Serves(); }, 60 * kSecond));
  EXPECT_NE(h_->StatusOf("a").error().find("it has not looked at"), std::string::npos);
}

TEST_F(RouterProbes, TheTimeOfAProbeBeginsWhenItIsAccepted) {
  BeginWith();
  FakeWorker* worker = h_->world.WorkerOf("a");
  worker->Wedge();
  h_->world.rules.validates = 4 * kSecond;
  ASSERT_TRUE(h_->RunUntil([&] { return h_->world.submits == 1; }));
  h_->RunFor(4 * kSecond);
  worker->Unwedge();
  h_->RunFor(2 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
  EXPECT_EQ(h_->world.WorkerOf("a"), worker);
}

// The answer came while the supervisor stood still, and is read after the alarm that is late.
TEST_F(RouterProbes, AProbeIsLookedAtTwice) {
  BeginWith();
  ASSERT_TRUE(h_->RunUntil([&] { return h_->world.submits == 1; }));
  const auto deliver = h_->world.on_message;
  std::vector<std::pair<Incarnation, v1::FromWorker>> queued;
  h_->world.on_message = [&](Incarnation worker, const v1::FromWorker& message) {
    queued.emplace_back(worker, message);
  };
  h_->RunFor(100 * kMillisecond);
  h_->world.timers.Jump(10 * kSecond);
  h_->RunFor(100 * kMillisecond);
  h_->world.on_message = deliver;
  for (const auto& [worker, message] : queued) deliver(worker, message);
  h_->RunFor(2 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
}

// A new worker proves nothing of the weights.
TEST_F(RouterProbes, OneWhoseWeightsAreDamagedIsUnhealthyUntilATokenComes) {
  BeginWith();
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

TEST_F(RouterProbes, AClientsRequestFindsDamageOutAtOnce) {
  BeginWith();
  h_->world.damaged.insert("a");
  EXPECT_EQ(Ask().code(), absl::StatusCode::kDataLoss);
  EXPECT_TRUE(h_->RunUntil([&] { return !Serves(); }, kSecond));
}

TEST_F(RouterProbes, AWorkerWhoseStepsFailIsReplacedAtOnceThoughTheIntervalIsZero) {
  options_.probe_interval = 0;
  Begin(150 * kMiB);
  ASSERT_TRUE(Done(h_->Switch("a")));
  h_->world.WorkerOf("a")->Break();
  EXPECT_EQ(Ask().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").restarts() == 1; }, kSecond));
  EXPECT_EQ(Ask(), absl::OkStatus());
}

// What a request has brought about alone is its own trouble.
TEST_F(RouterProbes, DamageThatOneRequestMeetsIsNoReasonToDoubt) {
  BeginWith();
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

TEST_F(RouterProbes, ADamagedModelFailsHoweverSeldomItIsAskedFor) {
  BeginWith();
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
TEST_F(RouterProbes, ADamagedModelDrivesOutNobodyForLong) {
  BeginWith();
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
TEST_F(RouterProbes, ADamagedModelThatNobodyGivesWayToFailsInTheEnd) {
  BeginWith();
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

TEST_F(RouterProbes, WhatIsPinnedAndDamagedFails) {
  BeginWith();
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

TEST_F(RouterProbes, WhoIsUnloadedWhileItsWorkerEndsIsNotInDoubt) {
  BeginWith();
  h_->world.WorkerOf("a")->Wedge();
  ASSERT_TRUE(Becomes(false));
  bool unloaded = false;
  h_->router->Unload("a", [&](absl::StatusOr<v1::UnloadReply>) { unloaded = true; });
  ASSERT_TRUE(h_->RunUntil([&] { return unloaded; }));
  h_->RunFor(kSecond);
  EXPECT_TRUE(Serves());
}

// A request would get its turn, but a pin alone drives out nobody who works.
TEST_F(RouterProbes, WhatIsPinnedAndFindsOthersAtWorkIsNotInDoubtForEver) {
  BeginWith();
  ASSERT_EQ(h_->router->Pin("a", true), absl::OkStatus());
  h_->world.WorkerOf("a")->Wedge();
  ASSERT_TRUE(Becomes(false));
  auto busy = h_->Generate("b", 1'000'000);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::WARM; }));
  h_->RunFor(5 * kSecond);
  EXPECT_FALSE(Serves());
  h_->RunFor(6 * kSecond);
  EXPECT_TRUE(Serves());
  EXPECT_EQ(h_->StatusOf("a").state(), v1::WARM);
  EXPECT_EQ(busy->finishes, 0);
}

TEST_F(RouterProbes, NothingIsStuckWhileAlarmsAreKept) {
  BeginWith();
  h_->world.WorkerOf("a")->Wedge();
  ASSERT_TRUE(h_->RunUntil([&] { return h_->world.submits == 1; }));
  EXPECT_EQ(h_->router->Stuck(), "");
  h_->world.timers.Jump(11 * kSecond);
  EXPECT_EQ(h_->router->Stuck(), "nobody has judged the self-probe of a");
  h_->RunFor(kSecond);
  EXPECT_EQ(h_->router->Stuck(), "");
}

}  // namespace
}  // namespace switchyard::supervisor
