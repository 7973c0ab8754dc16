// Whether work gets done is asked of idle models, and what is told of those that do none.

#include <algorithm>

#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

class RouterProbes : public RouterFixture {
 protected:
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
  BeginProbing();
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
  BeginProbing();
  for (int i = 0; i < 20; ++i) {
    ASSERT_TRUE(Done(h_->Generate("a", 2)));
    h_->RunFor(5 * kSecond);
  }
  EXPECT_EQ(h_->world.submits, 20u);
}

TEST_F(RouterProbes, AProbedModelStillFallsAsleepAndGivesWay) {
  auto catalog = Catalog();
  catalog[0].model.mutable_idle_timeout()->set_seconds(35);
  BeginProbing(catalog);
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

TEST_F(RouterProbes, OneThatRunsNoStepIsUnhealthyUntilItsNextWorkerIsThere) {
  BeginProbing();
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
  BeginProbing();
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
  BeginProbing();
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
  BeginProbing(catalog);
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
  BeginProbing();
  h_->world.WorkerOf("a")->Hang();
  ASSERT_TRUE(Becomes(false));
  EXPECT_NE(h_->StatusOf("a").error().find("heartbeat"), std::string::npos);
  ASSERT_TRUE(Becomes(true));
}

// It may keep the only place in the batch for as long as it likes: that says nothing of the worker.
TEST_F(RouterProbes, AClientThatDoesNotReadIsNoReasonToDoubt) {
  options_.sink_timeout = 1000 * kSecond;
  BeginProbing();
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
  BeginProbing();
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
  BeginProbing();
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
  BeginProbing();
  h_->world.rules.validates = 30 * kSecond;
  auto client = h_->Generate("a", 1);
  h_->RunFor(kSecond);
  h_->world.rules.validates = 0;
  h_->Cancel(client);
  h_->RunFor(40 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
}

TEST_F(RouterProbes, OneThatIsNotEvenAcceptedThoughNobodyElseAsksIsHung) {
  BeginProbing();
  h_->world.rules.validates = 1000 * kSecond;
  ASSERT_TRUE(h_->RunUntil([&] { return !Serves(); }, 16 * kSecond));
  EXPECT_NE(h_->StatusOf("a").error().find("self-probe"), std::string::npos);
}

// Whoever waits is no excuse for ever.
TEST_F(RouterProbes, OneThatLooksAtNothingAnyMoreIsFoundOutThoughClientsWait) {
  BeginProbing();
  h_->world.rules.validates = 1000 * kSecond;
  h_->Tokenize("a");
  h_->RunFor(kSecond);
  ASSERT_TRUE(h_->RunUntil([&] { return !Serves(); }, 60 * kSecond));
  EXPECT_NE(h_->StatusOf("a").error().find("it has not looked at"), std::string::npos);
}

TEST_F(RouterProbes, TheTimeOfAProbeBeginsWhenItIsAccepted) {
  BeginProbing();
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
  BeginProbing();
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

TEST_F(RouterProbes, WhoIsUnloadedWhileItsWorkerEndsIsNotInDoubt) {
  BeginProbing();
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
  BeginProbing();
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
  BeginProbing();
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
