// Drains end: what can neither finish in time nor be paused goes on, and holds up nobody.

#include "supervisor/retry_after.h"
#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

// Any of the models fits, but not beside another's fixed bytes.
constexpr uint64_t kOneAlone = 105 * kMiB;
// Two masters, and no room for a pool.
constexpr uint64_t kNoPause = 165 * kMiB;

class RouterDrains : public RouterFixture {
 protected:
  // A model that answers for longer than anybody waits.
  std::shared_ptr<ClientView> Busy(const std::string& model) {
    auto busy = h_->Generate(model, 1'000'000);
    EXPECT_TRUE(h_->RunUntil([&] { return busy->tokens > 0; }));
    h_->RunFor(2 * kSecond);  // its least turn
    return busy;
  }
  Nanos Now() const { return h_->world.timers.Now(); }

  // So many ask the model again and again that its pool does not hold them: they give up their KV.
  void Crowd(const std::string& model, uint32_t clients, uint32_t tokens) {
    h_->world.rules.faults.lacks_blocks = 0.5;
    crowd_ = {model, tokens, {}};
    for (uint32_t i = 0; i < clients; ++i) crowd_.clients.push_back(h_->Generate(model, tokens));
  }
  // True when `done`, while they go on asking.
  bool RunAmid(const std::function<bool()>& done, Nanos most) {
    return h_->RunUntil(
        [&] {
          for (auto& client : crowd_.clients) {
            if (client->finishes == 0) continue;
            EXPECT_EQ(client->status, absl::OkStatus());
            client = h_->Generate(crowd_.model, crowd_.tokens);
          }
          return done();
        },
        most);
  }
  void EndCrowd() {
    for (const auto& client : crowd_.clients) h_->Cancel(client);
  }

  struct {
    std::string model;
    uint32_t tokens = 0;
    std::vector<std::shared_ptr<ClientView>> clients;
  } crowd_;
};

TEST_F(RouterDrains, ASwitchThatNeedsTheWorkerOfABusyModelIsGivenUpAndSaysWhy) {
  Begin(kOneAlone);
  Settle();
  auto busy = Busy("a");
  const Nanos then = Now();
  auto op = h_->Switch("b");
  ASSERT_TRUE(Done(op));
  EXPECT_NEAR(static_cast<double>(Now() - then) / kSecond, 10, 0.5);
  EXPECT_EQ(op->status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(op->status.message(),
            "b cannot come in: what runs on cpu has not finished within 10000 ms, and a cannot "
            "pause, since its worker would have to end for the 10.0 MiB that it takes itself. It "
            "goes on: ask again when it is done, or unload the model that runs it");
  EXPECT_GE(RetryAfter(op->status), 10 * kSecond);
  // As if nothing had been.
  EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);
  ExpectServes("a");
  // It is known now, and nobody waits for it again.
  auto again = h_->Switch("b");
  ASSERT_TRUE(h_->RunUntil([&] { return again->finishes > 0; }, 100 * kMillisecond));
  EXPECT_EQ(again->status, op->status);
  EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);
  const uint32_t tokens = busy->tokens;
  h_->RunFor(kSecond);
  EXPECT_GT(busy->tokens, tokens);
  // Until it is done.
  h_->Cancel(busy);
  h_->RunFor(100 * kMillisecond);
  auto last = h_->Switch("b");
  ASSERT_TRUE(Done(last));
  EXPECT_EQ(last->status, absl::OkStatus());
}

TEST_F(RouterDrains, WhatFinishesInTimeIsWaitedFor) {
  Begin(kOneAlone);
  Settle();
  auto busy = h_->Generate("a", 1'500);  // about 8 s
  ASSERT_TRUE(h_->RunUntil([&] { return busy->tokens > 0; }));
  auto op = h_->Switch("b");
  ASSERT_TRUE(Done(op));
  EXPECT_EQ(op->status, absl::OkStatus());
  EXPECT_EQ(busy->tokens, 1'500u);
}

TEST_F(RouterDrains, RequestsWaitForTheNextChanceUntilTheirBoundIsOver) {
  Begin(kOneAlone);
  Settle();
  auto busy = Busy("a");
  const Nanos then = Now();
  auto refused = h_->Generate("b", 2);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::DRAINING; }));
  ASSERT_TRUE(
      h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::RESIDENT; }, 11 * kSecond));
  // Drained once, and not again: others are served.
  while (refused->finishes == 0) {
    EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);
    ExpectServes("a");
    h_->RunFor(kSecond);
  }
  EXPECT_LE(Now() - then, 32 * kSecond);
  EXPECT_EQ(refused->status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(refused->status.message().find("a cannot pause"), std::string::npos) << refused->status;
  EXPECT_GE(RetryAfter(refused->status), kSecond);
  // Another one has its chance as soon as it is there.
  auto waits = h_->Generate("b", 2);
  h_->RunFor(5 * kSecond);
  h_->Cancel(busy);
  ASSERT_TRUE(h_->RunUntil([&] { return waits->finishes > 0; }, 2 * kSecond));
  EXPECT_EQ(waits->status, absl::OkStatus());
}

// What gave up its KV would be lost with the worker: it runs on before that ends.
TEST_F(RouterDrains, WhoWaitsForACrowdsMemoryGetsItsTurn) {
  Begin(kOneAlone);
  Settle();
  Crowd("a", 6, 100);
  const auto crowded = [&] { return h_->StatusOf("a").paused() >= 2; };
  ASSERT_TRUE(RunAmid(crowded, 3 * kSecond));
  const uint64_t loads = h_->StatusOf("a").loads();
  for (int i = 0; i < 3; ++i) {
    auto newcomer = h_->Generate("b", 2);
    ASSERT_TRUE(RunAmid([&] { return newcomer->finishes > 0; }, 12 * kSecond));
    EXPECT_EQ(newcomer->status, absl::OkStatus());
    ASSERT_TRUE(RunAmid(crowded, 3 * kSecond));
  }
  EXPECT_EQ(h_->StatusOf("b").loads(), 3u);
  EXPECT_EQ(h_->StatusOf("a").loads(), loads + 3);
  EndCrowd();
}

// About 15 s: it is seen in time that giving up would be for nothing.
TEST_F(RouterDrains, WhatWillHaveFinishedBeforeAnyBoundIsWaitedForLonger) {
  Begin(kOneAlone);
  Settle();
  auto busy = h_->Generate("a", 3'000);
  ASSERT_TRUE(h_->RunUntil([&] { return busy->tokens > 0; }));
  const Nanos then = Now();
  auto newcomer = h_->Generate("b", 2);
  ASSERT_TRUE(Done(newcomer));
  EXPECT_EQ(newcomer->status, absl::OkStatus());
  EXPECT_EQ(busy->tokens, 3'000u);
  EXPECT_GT(Now() - then, 12 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").loads(), 1u);
}

TEST_F(RouterDrains, ButNotWhereItsOwnModelsNewcomersWouldBeLate) {
  auto catalog = Catalog();
  catalog[0].model.mutable_max_wait()->set_seconds(12);
  Begin(kOneAlone, 1024 * kMiB, catalog);
  Settle();
  auto busy = h_->Generate("a", 3'000);
  ASSERT_TRUE(h_->RunUntil([&] { return busy->tokens > 0; }));
  const Nanos then = Now();
  auto newcomer = h_->Generate("b", 2);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::DRAINING; }));
  auto late = h_->Generate("a", 2);
  ASSERT_TRUE(Done(late));
  EXPECT_EQ(late->status, absl::OkStatus());
  EXPECT_NEAR(static_cast<double>(Now() - then) / kSecond, 10, 0.5);
  ASSERT_TRUE(Done(newcomer));
  EXPECT_EQ(newcomer->status, absl::OkStatus()) << "when that has finished";
}

// They have output, and too much to do: drained once, and not again while any of them goes on.
TEST_F(RouterDrains, ACrowdThatDoesNotFinishIsDrainedOnce) {
  Begin(kOneAlone);
  Settle();
  Crowd("a", 3, 1'000'000);
  RunAmid([] { return false; }, 3 * kSecond);
  auto newcomer = h_->Generate("b", 2);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::DRAINING; }));
  ASSERT_TRUE(
      h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::RESIDENT; }, 11 * kSecond));
  while (newcomer->finishes == 0) {
    EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);
    h_->RunFor(kSecond);
  }
  EXPECT_EQ(h_->StatusOf("a").loads(), 1u) << "it has lost nothing";
  EXPECT_EQ(newcomer->status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(newcomer->status.message().find(
                "a cannot pause, since its worker would have to end for the 10.0 MiB that it takes "
                "itself. Ask again when what runs there is done, or unload its model"),
            std::string::npos)
      << newcomer->status;
  EndCrowd();
}

TEST_F(RouterDrains, WithoutHostMemoryToPauseIntoASwitchIsGivenUpToo) {
  Begin(150 * kMiB, kNoPause);
  Settle();
  auto busy = Busy("a");
  auto op = h_->Switch("b");
  ExpectGivenUp(op, "a needs 10.0 MiB of host memory to pause");
  h_->Cancel(busy);
}

// The room would be there as soon as c's worker lets go of a master that nobody needs.
TEST_F(RouterDrains, AWorkerThatLetsGoOfNoMasterHoldsUpASwapForNoLongerThanADrain) {
  Begin(150 * kMiB, 245 * kMiB);  // three masters, and half a pool
  Settle();
  auto busy = Busy("a");
  h_->world.WorkerOf("c")->Cling();
  auto op = h_->Switch("b");
  ExpectGivenUp(op, "a needs 10.0 MiB of host memory to pause");
  h_->Cancel(busy);
}

// c is small, and fits as long as b does not come in.
TEST_F(RouterDrains, WhoFitsIsServedMeanwhile) {
  auto catalog = Catalog();
  catalog[2] = FakeModel("c", kMiB, kMiB, 2, kMiB, kMiB);
  Begin(108 * kMiB, 1024 * kMiB, catalog);
  Settle();
  auto busy = Busy("a");
  auto op = h_->Switch("b");
  ASSERT_TRUE(Done(op));
  EXPECT_FALSE(op->status.ok());
  ExpectServes("c");
  ExpectServes("a");
  h_->Cancel(busy);
}

// Its worker is not ended with what runs in it: it pauses, and is told why when its bound is over
// and there is still no room.
TEST_F(RouterDrains, WhoStrangersLeaveNoRoomPausesInTheEnd) {
  Begin(150 * kMiB);
  Settle();
  auto busy = Busy("a");
  h_->Foreign("cpu", 145 * kMiB);
  h_->RunFor(15 * kSecond);
  EXPECT_EQ(busy->finishes, 0);
  ASSERT_TRUE(h_->RunUntil([&] { return busy->finishes > 0; }, 40 * kSecond));
  EXPECT_EQ(busy->status.code(), absl::StatusCode::kAborted) << "it had output";
  EXPECT_NE(busy->status.message().find("used by other programs"), std::string::npos);
  EXPECT_EQ(h_->world.pauses, 1u);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
  h_->Foreign("cpu", 0);
}

}  // namespace
}  // namespace switchyard::supervisor
