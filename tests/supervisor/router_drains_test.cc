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
