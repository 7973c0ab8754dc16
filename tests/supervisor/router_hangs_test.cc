// What becomes of a model whose workers live, or seem to, and say nothing or get nowhere.

#include "supervisor/backoff.h"
#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

using RouterHangs = RouterFixture;

TEST_F(RouterHangs, AHungWorkerIsReplaced) {
  Begin(300 * kMiB);
  Settle();
  ASSERT_TRUE(Done(h_->Switch("a")));
  const Nanos then = h_->world.timers.Now();
  h_->world.WorkerOf("a")->Hang();
  auto client = h_->Generate("a", 2);
  ASSERT_TRUE(Done(client));
  EXPECT_TRUE(client->status.ok()) << client->status;
  EXPECT_LT(h_->world.timers.Now() - then, 8 * kSecond);
}

// ---- A worker that has not said Hello yet.

TEST_F(RouterHangs, OneThatIsStoppedAsItStartsIsReplaced) {
  rules_.faults.hangs_at_launch = 1;
  Begin(300 * kMiB);
  const Nanos then = h_->world.timers.Now();
  Settle();
  h_->world.rules.faults.hangs_at_launch = 0;
  EXPECT_EQ(Ask(), absl::OkStatus());
  EXPECT_LT(h_->world.timers.Now() - then, 12 * kSecond);
  EXPECT_NE(h_->StatusOf("a").last_failure().find("no sign of life since it was started, for 10 s"),
            std::string::npos)
      << h_->StatusOf("a").last_failure();
}

TEST_F(RouterHangs, OneThatIsStoppedBetweenItsFirstSignAndHelloIsReplaced) {
  rules_.start = 60 * kSecond;
  Begin(300 * kMiB);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->world.WorkerOf("a")->spoke(); }));
  h_->world.WorkerOf("a")->Hang();
  h_->world.rules.start = kSecond;
  const Nanos then = h_->world.timers.Now();
  EXPECT_EQ(Ask(), absl::OkStatus());
  EXPECT_LT(h_->world.timers.Now() - then, 8 * kSecond);
}

// The machine is slow, nothing is wrong with the workers.
TEST_F(RouterHangs, OneThatSaysNothingForLongAsItStartsComesInTheEnd) {
  rules_.first_sign = 100 * kSecond;
  Begin(300 * kMiB);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::WARM; }, 600 * kSecond));
  EXPECT_LT(h_->StatusOf("a").restarts(), static_cast<uint32_t>(kFailuresUntilFailed));
}

TEST_F(RouterHangs, AnOperatorsLoadForgivesSilentStarts) {
  Begin(300 * kMiB);
  Settle();
  h_->world.rules.faults.hangs_at_launch = 1;
  Kill();
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").restarts() == 2; }));
  // As the harness does: whoever is forgiven has the patience of the first.
  h_->world.silent_starts.clear();
  auto op = h_->Switch("a", false);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").restarts() == 3; }));
  h_->world.rules.faults.hangs_at_launch = 0;
  EXPECT_NE(h_->StatusOf("a").last_failure().find("since it was started, for 10 s"),
            std::string::npos)
      << h_->StatusOf("a").last_failure();
}

TEST_F(RouterHangs, OneThatLivesMayTakeItsTimeToStart) {
  rules_.start = 119 * kSecond;
  Begin(300 * kMiB);
  for (const char* model : {"a", "b", "c"}) {
    EXPECT_TRUE(h_->RunUntil([&] { return h_->StatusOf(model).state() == v1::WARM; }));
    EXPECT_EQ(h_->StatusOf(model).restarts(), 0u);
  }
}

TEST_F(RouterHangs, ButNotForEver) {
  Begin(300 * kMiB);
  // As long as there are heartbeats; each worker takes two hours.
  h_->world.rules.start = 7200 * kSecond;
  const Nanos then = h_->world.timers.Now();
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").restarts() == 1; }, 300 * kSecond));
  EXPECT_GT(h_->world.timers.Now() - then, 119 * kSecond);
  EXPECT_LT(h_->world.timers.Now() - then, 123 * kSecond);
  EXPECT_NE(h_->StatusOf("a").last_failure().find("did not start within 120 s"), std::string::npos);
  h_->world.rules.start = kSecond;
}

// ---- A worker that beats, and gets nowhere with a load.

TEST_F(RouterHangs, OneThatIsStuckFillingItsMasterIsReplaced) {
  options_.prefetch_at_start = false;
  Begin(300 * kMiB);
  Settle();
  h_->world.rules.faults.stalls = 1;
  const Nanos then = h_->world.timers.Now();
  auto waits = h_->Generate("a", 2);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").restarts() == 1; }));
  h_->world.rules.faults.stalls = 0;
  EXPECT_LT(h_->world.timers.Now() - then, 21 * kSecond);
  ASSERT_TRUE(Done(waits));
  EXPECT_EQ(waits->status, absl::OkStatus());
  EXPECT_NE(h_->StatusOf("a").last_failure().find("no progress with its master for 20 s"),
            std::string::npos);
}

TEST_F(RouterHangs, OneThatIsStuckLoadingIsReplaced) {
  Begin(150 * kMiB);
  Settle();
  for (const char* name : {"a", "b"}) ASSERT_TRUE(Done(h_->Switch(name)));
  h_->world.rules.faults.stalls = 1;  // its device is open, its weights are not there
  const Nanos then = h_->world.timers.Now();
  auto waits = h_->Generate("a", 2);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").restarts() == 1; }));
  h_->world.rules.faults.stalls = 0;
  EXPECT_LT(h_->world.timers.Now() - then, 24 * kSecond) << "a switch keeps its turn for 2 s";
  ASSERT_TRUE(Done(waits));
  EXPECT_EQ(waits->status, absl::OkStatus());
  EXPECT_NE(h_->StatusOf("a").last_failure().find("did not follow its lease for 20 s"),
            std::string::npos);
}

// The disk is slow, nothing is wrong with the workers.
TEST_F(RouterHangs, AFillThatStandsStillForLongComesInTheEnd) {
  options_.prefetch_at_start = false;
  rules_.fills = 100 * kSecond;
  Begin(300 * kMiB);
  absl::Status status = Ask();
  while (absl::IsUnavailable(status)) status = Ask();
  EXPECT_EQ(status, absl::OkStatus());
  EXPECT_LT(h_->StatusOf("a").restarts(), static_cast<uint32_t>(kFailuresUntilFailed));
}

// Nor is anything wrong with these: their devices take long for what the master has.
TEST_F(RouterHangs, AGrowthThatStandsStillForLongComesInTheEnd) {
  Begin(300 * kMiB);
  Settle();
  h_->world.rules.bytes_per_second = 40.0 * kMiB / 50;  // half of what is missing at a time
  absl::Status status = Ask();
  while (absl::IsUnavailable(status)) status = Ask();
  EXPECT_EQ(status, absl::OkStatus());
  EXPECT_EQ(h_->StatusOf("a").restarts(), 1u);
}

// Only a pool grows: what that takes, a worker does not tell of.
TEST_F(RouterHangs, AGrowthWithoutWeightsMayTakeLonger) {
  Begin(195 * kMiB);
  Settle();
  for (const char* name : {"a", "b"}) ASSERT_TRUE(Done(h_->Switch(name)));
  h_->world.rules.faults.stalls = 1;
  auto waits = h_->Generate("a", 2);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").restarts() == 1; }));
  h_->world.rules.faults.stalls = 0;
  ASSERT_TRUE(Done(waits));
  EXPECT_NE(h_->StatusOf("a").last_failure().find("did not follow its lease for 60 s"),
            std::string::npos)
      << h_->StatusOf("a").last_failure();
}

// On a cpu the first prompt may, and may begin before all weights are there.
TEST_F(RouterHangs, AStepThatTakesLongWhileItsLeaseGrowsDoesNotHang) {
  Begin(300 * kMiB);
  Settle();
  h_->world.rules.bytes_per_second = 40.0 * kMiB;
  auto op = h_->Switch("a");
  FakeWorker* worker = h_->world.WorkerOf("a");
  ASSERT_TRUE(h_->RunUntil([&] { return worker->held().weights > 0; }));
  worker->StepFor(40 * kSecond);
  ASSERT_TRUE(Done(op));
  EXPECT_EQ(op->status, absl::OkStatus());
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
}

TEST_F(RouterHangs, StepsAreNoExcuseForEverForALeaseThatStandsStill) {
  Begin(150 * kMiB);
  Settle();
  for (const char* name : {"a", "b"}) ASSERT_TRUE(Done(h_->Switch(name)));
  h_->world.rules.faults.stalls = 1;
  auto waits = h_->Generate("a", 2);
  const Nanos then = h_->world.timers.Now();
  while (h_->StatusOf("a").restarts() == 0 && h_->world.timers.Now() - then < 600 * kSecond) {
    if (FakeWorker* worker = h_->world.WorkerOf("a")) worker->StepFor(15 * kSecond);
    h_->RunFor(15 * kSecond);
  }
  h_->world.rules.faults.stalls = 0;
  EXPECT_LT(h_->world.timers.Now() - then, 90 * kSecond);
  EXPECT_TRUE(Done(waits));
}

// Between the two looks at a lease it gets on: it was the supervisor that read nothing before.
TEST_F(RouterHangs, ALeaseThatGetsOnAfterTheFirstLookIsLeftAlone) {
  const auto [busy, op] = DrainLong();
  FakeWorker* worker = h_->world.WorkerOf("a");
  h_->RunFor(58 * kSecond);
  worker->Wedge();
  h_->RunFor(61'200 * kMillisecond);
  worker->Unwedge();
  h_->RunFor(2 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
  EXPECT_EQ(busy->finishes, 0);
  h_->Cancel(busy);
  EXPECT_TRUE(Done(op));
}

// A lease that shrinks has the longest patience already: that it stood still says nothing of loads.
TEST_F(RouterHangs, AShrinkThatStandsStillMakesNobodyWaitForTheNextLoad) {
  const auto [busy, op] = DrainLong();
  h_->world.WorkerOf("a")->Wedge();
  ASSERT_TRUE(Done(op));
  ASSERT_EQ(h_->StatusOf("a").restarts(), 1u);
  ASSERT_EQ(Prefetch("a"), absl::OkStatus());
  h_->world.rules.bytes_per_second = 8.0 * kMiB;
  auto waits = h_->Generate("a", 2);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->world.WorkerOf("a")->held().weights > 0; }));
  h_->world.rules.faults.stalls = 1;
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").restarts() == 2; }));
  h_->world.rules.faults.stalls = 0;
  EXPECT_NE(h_->StatusOf("a").last_failure().find("did not follow its lease for 20 s"),
            std::string::npos)
      << h_->StatusOf("a").last_failure();
  ASSERT_TRUE(Done(waits));
}

// It is tried as if nothing had been.
TEST_F(RouterHangs, AnOperatorsLoadForgivesLoadsThatGotNowhere) {
  options_.prefetch_at_start = false;
  Begin(300 * kMiB);
  Settle();
  h_->world.rules.faults.stalls = 1;
  auto waits = h_->Generate("a", 2);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").restarts() == 1; }));
  auto op = h_->Switch("a", false);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").restarts() == 2; }));
  h_->world.rules.faults.stalls = 0;
  EXPECT_NE(h_->StatusOf("a").last_failure().find("no progress with its master for 20 s"),
            std::string::npos)
      << h_->StatusOf("a").last_failure();
}

// While weights come from a slow disk, a step waits for them; afterwards it has as long as any.
TEST_F(RouterHangs, AStepThatWaitsForAGrowthDoesNotHang) {
  Begin(300 * kMiB);
  Settle();
  const Incarnation worker = h_->world.WorkerOf("a")->incarnation();
  const auto tell_of_a_step = [&](Nanos running) {
    v1::FromWorker message;
    message.mutable_heartbeat()->set_step_running_ns(static_cast<uint64_t>(running));
    message.mutable_heartbeat()->set_step_predicted_ns(kSecond);
    h_->router->OnWorkerMessage(worker, message);
  };
  auto op = h_->Switch("a");
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::LOADING; }));
  tell_of_a_step(100 * kSecond);
  ASSERT_TRUE(Done(op));
  EXPECT_TRUE(op->status.ok()) << op->status;
  tell_of_a_step(101 * kSecond);
  h_->RunFor(9 * kSecond);
  tell_of_a_step(110 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
  h_->RunFor(2 * kSecond);
  h_->world.WorkerOf("a")->Hang();  // its own beats tell of no step
  tell_of_a_step(112 * kSecond);
  h_->RunFor(kSecond);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
  tell_of_a_step(113 * kSecond);
  h_->RunFor(kSecond);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 1u);
}

// A pool that grows is nothing that a step waits for.
TEST_F(RouterHangs, AStepThatHangsIsFoundOutWhileItsPoolGrows) {
  Begin(300 * kMiB);
  Settle();
  ASSERT_TRUE(Done(h_->Switch("a")));
  FakeWorker* worker = h_->world.WorkerOf("a");
  worker->LoseKv(15 * kMiB);  // of 40
  h_->RunFor(kSecond);
  worker->Hang();  // nor does it follow
  const Incarnation incarnation = worker->incarnation();
  for (Nanos running = 0; running <= 7 * kSecond; running += 500 * kMillisecond) {
    v1::FromWorker message;
    message.mutable_heartbeat()->set_waiting(1);
    message.mutable_heartbeat()->set_running(8);
    message.mutable_heartbeat()->set_step_running_ns(static_cast<uint64_t>(running));
    message.mutable_heartbeat()->set_step_predicted_ns(kMillisecond);
    h_->router->OnWorkerMessage(incarnation, message);
    if (running == 0) {
      const LeaseEntry lease = h_->router->Ledger("cpu")->Get("a");
      ASSERT_GT(lease.granted.kv, lease.held.kv);
    }
    h_->RunFor(500 * kMillisecond);
  }
  EXPECT_EQ(h_->StatusOf("a").restarts(), 1u);
  EXPECT_NE(h_->StatusOf("a").last_failure().find("a step has run for"), std::string::npos)
      << h_->StatusOf("a").last_failure();
}

// A pause of the machine or the container: its clock went on, and nothing else did.
TEST_F(RouterHangs, AStepThatAPauseFellIntoDoesNotHang) {
  rules_.step = 3 * kSecond;
  Begin(300 * kMiB);
  Settle();
  auto client = h_->Generate("a", 100'000);
  ASSERT_TRUE(h_->RunUntil([&] { return client->tokens > 0; }));
  for (int i = 0; i < 5; ++i) {
    h_->RunFor(6 * kSecond);
    h_->world.timers.Jump(60 * kSecond);
  }
  const uint32_t tokens = client->tokens;
  h_->RunFor(6 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
  EXPECT_GT(client->tokens, tokens);
  h_->Cancel(client);
}

// ---- We do not hear: the thread that reads what workers say stands still, and the loop does not.

TEST_F(RouterHangs, WhoCannotBeHeardIsNotSilent) {
  Begin(300 * kMiB);
  Settle();
  ASSERT_TRUE(Done(h_->Switch("a")));
  h_->Freeze();
  h_->RunFor(120 * kSecond);
  h_->Thaw();
  h_->RunFor(20 * kSecond);
  for (const char* model : {"a", "b", "c"}) EXPECT_EQ(h_->StatusOf(model).restarts(), 0u) << model;
  EXPECT_EQ(Ask(), absl::OkStatus());
}

TEST_F(RouterHangs, NorIsOneThatDoesNotAnswerAProbeThen) {
  BeginProbing();
  ASSERT_TRUE(h_->RunUntil([&] { return h_->world.submits == 1; }));
  h_->Freeze();
  h_->RunFor(60 * kSecond);
  h_->Thaw();
  h_->RunFor(20 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
  EXPECT_TRUE(Serves());
}

TEST_F(RouterHangs, WhoHungMeanwhileIsReplacedSoonAfter) {
  Begin(300 * kMiB);
  Settle();
  h_->Freeze();
  h_->world.WorkerOf("a")->Hang();
  h_->RunFor(60 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
  h_->Thaw();
  h_->RunFor(2 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 1u);
  EXPECT_EQ(Ask(), absl::OkStatus());
}

// That it is reaped is heard there, too.
TEST_F(RouterHangs, WhoEndedMeanwhileIsNotTakenToBeUnkillable) {
  Begin(300 * kMiB);
  Settle();
  h_->Freeze();
  bool unloaded = false;
  h_->router->Unload("a", [&](const auto& reply) { unloaded = reply.ok(); });
  h_->RunFor(60 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").error(), "");
  h_->Thaw();
  h_->RunFor(kSecond);
  EXPECT_TRUE(unloaded);
}

// A swap may wait for its bytes.
TEST_F(RouterHangs, OneThatIsToldToEndAndHangsIsKilledAsSoonAsAnyThatHangs) {
  Begin(300 * kMiB);
  Settle();
  h_->world.WorkerOf("a")->Hang();
  bool unloaded = false;
  h_->router->Unload("a", [&](const auto& reply) { unloaded = reply.ok(); });
  h_->RunFor(6 * kSecond);
  EXPECT_TRUE(unloaded);
}

}  // namespace
}  // namespace switchyard::supervisor
