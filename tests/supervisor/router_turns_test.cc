// Turns, bounds on waiting, and what is made ready meanwhile, one scene each.

#include <gtest/gtest.h>

#include "supervisor/retry_after.h"
#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

class RouterTurnsTest : public RouterFixture {
 protected:
  bool Starts(const std::shared_ptr<ClientView>& client) {
    return h_->RunUntil([&] { return client->tokens > 0; });
  }
  Nanos Now() const { return h_->world.timers.Now(); }
  // `a` answers for long, and there is no room for `b` beside it.
  std::shared_ptr<ClientView> BusyBesideOneThatMayWaitForThreeSeconds() {
    auto catalog = Catalog();
    catalog[1].model.mutable_max_wait()->set_seconds(3);
    Begin(150 * kMiB, 1024 * kMiB, catalog);
    Settle();
    auto busy = h_->Generate("a", 20'000);
    EXPECT_TRUE(Starts(busy));
    h_->RunFor(kSecond);
    return busy;
  }
};

TEST_F(RouterTurnsTest, AModelWithoutWorkGivesWayAtOnce) {
  Begin(150 * kMiB);
  Settle();
  ASSERT_TRUE(Done(h_->Generate("a", 1)));
  auto other = h_->Generate("b", 1);
  ASSERT_TRUE(Done(other));
  EXPECT_LT(other->timings.queue_ms() + other->timings.swap_ms(), 1000);
}

// A swap takes 2 s: a least turn is 4 s, and one request of a weighs 4 s of waiting.
TEST_F(RouterTurnsTest, ABusyModelHasItsLeastTurnThenWaitingIsWeighed) {
  Begin(150 * kMiB);
  Settle();
  h_->world.rules.bytes_per_second = 40 * kMiB;
  auto busy = h_->Generate("a", 20'000);
  ASSERT_TRUE(Starts(busy));
  const Nanos turn = Now();
  auto one = h_->Generate("b", 1);
  h_->RunFor(3800 * kMillisecond);
  EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);
  h_->RunFor(kSecond);
  EXPECT_EQ(h_->StatusOf("a").state(), v1::DRAINING);
  ASSERT_TRUE(Done(one));
  EXPECT_GT(Now() - turn, 4 * kSecond);
  // With three at once b waits for no more than the least turn.
  auto more = h_->Generate("c", 1);
  h_->Generate("c", 1);
  h_->Generate("c", 1);
  ASSERT_TRUE(Done(more));
  EXPECT_TRUE(more->status.ok()) << more->status;
  h_->Cancel(busy);
}

TEST_F(RouterTurnsTest, HigherPriorityIsFirst) {
  Begin(150 * kMiB);
  Settle();
  auto busy = h_->Generate("a", 300);
  ASSERT_TRUE(Starts(busy));
  auto older = h_->Generate("b", 1);
  h_->RunFor(20 * kMillisecond);
  auto urgent = h_->Generate("c", 1, 0, 5);
  ASSERT_TRUE(Done(urgent));
  EXPECT_EQ(older->finishes, 0);
  ASSERT_TRUE(Done(older));
  EXPECT_TRUE(older->status.ok()) << older->status;
}

// What a resident model has to do changes with each of its requests: decided not at each, but soon.
TEST_F(RouterTurnsTest, WhenAResidentModelsWorkMattersLessOthersComeInWithinAMillisecond) {
  Begin(150 * kMiB);
  Settle();
  auto urgent = h_->Generate("a", 20'000, 0, 5);
  auto busy = h_->Generate("a", 20'000, 0, -5);
  ASSERT_TRUE(Starts(busy));
  auto waits = h_->Generate("b", 1);
  h_->RunFor(10 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);
  h_->Cancel(urgent);
  h_->RunFor(kMillisecond);
  EXPECT_EQ(h_->StatusOf("a").state(), v1::DRAINING);
  ASSERT_TRUE(Done(waits));
  EXPECT_EQ(waits->status, absl::OkStatus());
  h_->Cancel(busy);
}

TEST_F(RouterTurnsTest, LowerPriorityWaitsForItsBoundAndNoLonger) {
  Begin(150 * kMiB);
  Settle();
  auto busy = h_->Generate("a", 1'000'000, 0, 5);
  ASSERT_TRUE(Starts(busy));
  const Nanos then = Now();
  auto low = h_->Generate("b", 1);
  ASSERT_TRUE(Done(low));
  EXPECT_TRUE(low->status.ok()) << low->status;
  EXPECT_GT(Now() - then, 19 * kSecond);  // 30 s less the drain
  EXPECT_LT(Now() - then, 32 * kSecond);
  h_->Cancel(busy);
}

TEST_F(RouterTurnsTest, ASwitchGivesItsModelATurnThoughNothingIsAskedOfItYet) {
  Begin(150 * kMiB);
  Settle();
  for (int i = 0; i < 20; ++i) h_->Generate("a", 400);
  h_->RunFor(500 * kMillisecond);
  ASSERT_TRUE(Done(h_->Switch("b")));
  h_->RunFor(kSecond);
  EXPECT_EQ(h_->StatusOf("b").state(), v1::RESIDENT);
  auto asked = h_->Generate("b", 1);
  ASSERT_TRUE(Done(asked));
  EXPECT_EQ(asked->timings.swap_ms(), 0);
  // And then those who wait have theirs.
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::RESIDENT; }));
}

TEST_F(RouterTurnsTest, WhoseBoundIsOverIsRefusedAndToldWhyAndWhenToComeBack) {
  Begin(150 * kMiB, 165 * kMiB);  // two masters, and no room for a pool
  Settle();
  auto busy = h_->Generate("a", 1'000'000);
  ASSERT_TRUE(Starts(busy));
  const Nanos then = Now();
  auto refused = h_->Generate("b", 1);
  ASSERT_TRUE(Done(refused));
  EXPECT_EQ(refused->status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(refused->status.message().find(
                "b did not get its turn on cpu within 30 s, longer than which no request waits: "
                "a needs 10.0 MiB of host memory to pause"),
            std::string::npos)
      << refused->status;
  EXPECT_GE(RetryAfter(refused->status), kSecond);
  EXPECT_NEAR(static_cast<double>(Now() - then) / kSecond, 30, 0.1);
  // The one that could not be paused goes on as if nothing had been.
  h_->RunFor(kSecond);
  EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);
  h_->Cancel(busy);
}

// It waits for its worker, then its master is filled, then it waits for its turn.
TEST_F(RouterTurnsTest, WhatWasWaitedBeforeALoadCountsAfterIt) {
  options_.prefetch_at_start = false;
  Begin(150 * kMiB);
  Settle();
  auto busy = h_->Generate("a", 1'000'000, 0, 5);
  ASSERT_TRUE(Starts(busy));
  h_->world.rules.start = 20 * kSecond;
  h_->world.rules.fills = 20 * kSecond;
  h_->world.WorkerOf("b")->Die("test");
  h_->RunFor(kSecond);
  const Nanos asked = Now();
  auto low = h_->Generate("b", 1);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->world.fills == 2; }));
  const Nanos fills = Now();
  ASSERT_GT(fills - asked, 2 * kSecond);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("b").state() == v1::WARM; }));
  const Nanos filled = Now();
  ASSERT_GT(filled - fills, 2 * kSecond);
  ASSERT_TRUE(Done(low));
  EXPECT_TRUE(low->status.ok()) << low->status;
  EXPECT_LT(fills - asked + Now() - filled, 31 * kSecond);
  EXPECT_GT(Now() - asked, 31 * kSecond);
  h_->Cancel(busy);
}

// Victims have 10 s to finish, but not of somebody's 3.
TEST_F(RouterTurnsTest, ADrainIsCutShortForWhoeverIsDue) {
  const auto busy = BusyBesideOneThatMayWaitForThreeSeconds();
  const Nanos then = Now();
  auto other = h_->Generate("b", 1);
  ASSERT_TRUE(Done(other));
  EXPECT_TRUE(other->status.ok()) << other->status;
  EXPECT_LT(Now() - then, 3 * kSecond);
  EXPECT_EQ(h_->world.pauses, 1u);
  // Where nobody is, it is not: c has 30 s.
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::RESIDENT; }));
  h_->RunFor(kSecond);
  auto patient = h_->Generate("c", 1);
  h_->RunFor(9 * kSecond);
  EXPECT_EQ(h_->world.pauses, 1u);
  ASSERT_TRUE(Done(patient));
  EXPECT_EQ(h_->world.pauses, 2u);
  h_->Cancel(busy);
}

// A switch lets victims take their time; a request that comes meanwhile has less of it.
TEST_F(RouterTurnsTest, ADrainUnderWayIsCutShortForWhoComesLater) {
  const auto busy = BusyBesideOneThatMayWaitForThreeSeconds();
  auto op = h_->Switch("b");
  h_->RunFor(kSecond);
  EXPECT_EQ(h_->StatusOf("a").state(), v1::DRAINING);
  const Nanos then = Now();
  auto other = h_->Generate("b", 1);
  ASSERT_TRUE(Done(other));
  EXPECT_TRUE(other->status.ok()) << other->status;
  EXPECT_GT(Now() - then, 2 * kSecond);
  EXPECT_LT(Now() - then, 3 * kSecond);
  ASSERT_TRUE(Done(op));
  EXPECT_TRUE(op->status.ok()) << op->status;
  h_->Cancel(busy);
}

TEST_F(RouterTurnsTest, WhatCannotBePausedHasAllOfItsDrain) {
  auto catalog = Catalog();
  catalog[1].model.mutable_max_wait()->set_seconds(3);
  Begin(150 * kMiB, 165 * kMiB, catalog);  // two masters, and no room for a pool
  Settle();
  auto busy = h_->Generate("a", 2000);  // 10 s
  ASSERT_TRUE(Starts(busy));
  h_->RunFor(kSecond);
  const Nanos then = Now();
  auto refused = h_->Generate("b", 1);
  auto op = h_->Switch("b");
  ASSERT_TRUE(Done(refused));
  EXPECT_EQ(refused->status.code(), absl::StatusCode::kResourceExhausted) << refused->status;
  EXPECT_NEAR(static_cast<double>(Now() - then) / kSecond, 3, 0.1);
  ASSERT_TRUE(Done(op));
  EXPECT_TRUE(op->status.ok()) << op->status;
  EXPECT_EQ(busy->tokens, 2000u);
}

TEST_F(RouterTurnsTest, AModelsOwnBoundMayBeLonger) {
  auto catalog = Catalog();
  catalog[1].model.mutable_max_wait()->set_seconds(90);
  Begin(150 * kMiB, 165 * kMiB, catalog);
  Settle();
  auto busy = h_->Generate("a", 10'000);  // about 50 s
  ASSERT_TRUE(Starts(busy));
  auto patient = h_->Generate("b", 1);
  ASSERT_TRUE(Done(patient));
  EXPECT_TRUE(patient->status.ok()) << patient->status;
  EXPECT_GT(patient->timings.swap_ms(), 30'000);
}

TEST_F(RouterTurnsTest, WhatCannotBeServedWithinItsBoundIsRefusedAtOnce) {
  auto catalog = Catalog();
  catalog[0].model.mutable_max_wait()->set_seconds(1);
  Begin(150 * kMiB, 1024 * kMiB, catalog);
  Settle();
  h_->world.rules.faults.dies_at_start = 1;
  h_->world.WorkerOf("a")->Die("test");
  h_->RunFor(5 * kSecond);  // and three more: the back-off is 4 s
  auto refused = h_->Generate("a", 1);
  EXPECT_EQ(refused->status.code(), absl::StatusCode::kUnavailable);
  EXPECT_GT(RetryAfter(refused->status), kSecond);
  auto waits = h_->Generate("b", 1);
  h_->world.rules.faults.dies_at_start = 0;
  ASSERT_TRUE(Done(waits));
  EXPECT_TRUE(waits->status.ok()) << waits->status;
}

TEST_F(RouterTurnsTest, AVictimDrainsThenPausesThenGoesOn) {
  Begin(150 * kMiB);
  Settle();
  auto longer = h_->Generate("a", 5000);  // about 25 s
  ASSERT_TRUE(h_->RunUntil([&] { return longer->tokens > 10; }));
  auto other = h_->Generate("b", 3);
  h_->RunFor(5 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").state(), v1::DRAINING);
  ASSERT_TRUE(Done(other));
  EXPECT_TRUE(other->status.ok());
  EXPECT_EQ(h_->world.pauses, 1u);
  EXPECT_EQ(longer->finishes, 0);
  ASSERT_TRUE(Done(longer));
  EXPECT_TRUE(longer->status.ok()) << longer->status;
  EXPECT_EQ(longer->tokens, 5000u);
}

TEST_F(RouterTurnsTest, WithoutHostMemoryAVictimGoesOnToItsEnd) {
  Begin(150 * kMiB, 165 * kMiB);  // two masters, and no room for a pool
  Settle();
  auto longer = h_->Generate("a", 5000);
  ASSERT_TRUE(h_->RunUntil([&] { return longer->tokens > 10; }));
  auto other = h_->Generate("b", 3);
  ASSERT_TRUE(Done(other));
  EXPECT_EQ(h_->world.pauses, 0u);
  EXPECT_EQ(longer->tokens, 5000u);
}

TEST_F(RouterTurnsTest, AResidentModelIsNeverBlockedByAnothersLoad) {
  BeginPinned(210 * kMiB);
  Settle();
  ASSERT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);
  auto op = h_->Switch("b");
  auto client = h_->Generate("a", 1);
  ASSERT_TRUE(Done(client));
  EXPECT_EQ(op->finishes, 0);
  ASSERT_TRUE(Done(op));
  EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);
}

TEST_F(RouterTurnsTest, HostMemoryIsKeptBeforeTheDrainBegins) {
  Begin(150 * kMiB, 400 * kMiB);
  Settle();
  auto busy = h_->Generate("a", 20'000);
  ASSERT_TRUE(Starts(busy));
  EXPECT_EQ(h_->router->HostAccount().used(), 240 * kMiB);
  auto other = h_->Generate("b", 1);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::DRAINING; }));
  EXPECT_EQ(h_->router->HostAccount().paused("a"), 10 * kMiB);  // one sequence, at its largest
  EXPECT_EQ(h_->world.pauses, 0u);
  ASSERT_TRUE(Done(other));
  EXPECT_EQ(h_->world.pauses, 1u);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::RESIDENT; }));
  h_->RunFor(kSecond);
  EXPECT_EQ(h_->router->HostAccount().paused("a"), 0u);
  h_->Cancel(busy);
}

TEST_F(RouterTurnsTest, WhoIsPausedWithALastTokenComesBackToo) {
  rules_.launches_ahead = true;
  Begin(150 * kMiB);
  Settle();
  auto busy = h_->Generate("a", 4'000);
  ASSERT_TRUE(Starts(busy));
  auto op = h_->Switch("b");
  ASSERT_TRUE(Done(op));
  ASSERT_GT(h_->world.pauses, 0u);
  EXPECT_EQ(h_->StatusOf("a").paused(), 1u);
  EXPECT_EQ(h_->StatusOf("a").running(), 0u);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::RESIDENT; }));
  ASSERT_TRUE(Done(busy));
  EXPECT_EQ(busy->tokens, 4'000u);
}

TEST_F(RouterTurnsTest, MastersThatNobodyNeedsMakeRoomForPausedSequences) {
  Begin(150 * kMiB, 245 * kMiB);  // three masters, and half a pool
  Settle();
  EXPECT_EQ(h_->router->HostAccount().used(), 240 * kMiB);
  auto busy = h_->Generate("a", 20'000);
  ASSERT_TRUE(Starts(busy));
  auto other = h_->Generate("b", 1);
  ASSERT_TRUE(Done(other));
  EXPECT_TRUE(other->status.ok()) << other->status;
  EXPECT_EQ(h_->world.pauses, 1u);
  EXPECT_EQ(h_->StatusOf("c").state(), v1::COLD);
  h_->Cancel(busy);
}

TEST_F(RouterTurnsTest, AColdModelsMasterIsFilledWhileAnotherServes) {
  options_.prefetch_at_start = false;
  Begin(150 * kMiB);
  auto busy = h_->Generate("a", 20'000);
  ASSERT_TRUE(Starts(busy));
  h_->RunFor(3 * kSecond);
  EXPECT_EQ(h_->world.fills, 1u);
  auto cold = h_->Generate("b", 1);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("b").master_bytes() > 0; }));
  EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);  // gives way when b can use it
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::DRAINING; }));
  EXPECT_GT(h_->StatusOf("b").master_bytes(), 0u);  // complete, or soon: what is there is copied
  ASSERT_TRUE(Done(cold));
  h_->Cancel(busy);
}

TEST_F(RouterTurnsTest, ADrainForStrangersIsCutShortForWhoWaits) {
  options_.drain_timeout = 20 * kSecond;
  auto catalog = Catalog();
  catalog[1].model.mutable_max_wait()->set_seconds(3);
  Begin(250 * kMiB, 1024 * kMiB, catalog);
  Settle();
  auto busy = h_->Generate("a", 100'000);
  auto busy_too = h_->Generate("c", 100'000);
  ASSERT_TRUE(Starts(busy) && Starts(busy_too));
  h_->Foreign("cpu", 60 * kMiB);
  ASSERT_TRUE(h_->RunUntil([&] {
    return h_->StatusOf("a").state() == v1::DRAINING || h_->StatusOf("c").state() == v1::DRAINING;
  }));
  auto waits = h_->Generate("b", 1);
  ASSERT_TRUE(Done(waits));
  EXPECT_TRUE(waits->status.ok()) << waits->status;
  h_->Foreign("cpu", 0);
  h_->Cancel(busy);
  h_->Cancel(busy_too);
}

// The machine slept, or nobody ran: who has become overdue meanwhile may be about to get its turn.
TEST_F(RouterTurnsTest, WhoHasBecomeOverdueWhileTheClockJumpedGetsASecondLook) {
  Begin(150 * kMiB);
  Settle();
  auto busy = h_->Generate("a", 1'000'000);
  ASSERT_TRUE(h_->RunUntil([&] { return busy->tokens > 0; }));
  auto waits = h_->Generate("b", 1);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::DRAINING; }));
  h_->world.timers.Jump(60 * kSecond);
  ASSERT_TRUE(Done(waits));
  EXPECT_EQ(waits->status, absl::OkStatus());
  h_->Cancel(busy);
}

// Where it is not, it is told so then.
TEST_F(RouterTurnsTest, WhoIsOverdueInTheSecondLookIsRefused) {
  Begin(150 * kMiB, 165 * kMiB);  // two masters, and no room for a pool
  Settle();
  auto busy = h_->Generate("a", 1'000'000);
  ASSERT_TRUE(h_->RunUntil([&] { return busy->tokens > 0; }));
  auto waits = h_->Generate("b", 1);
  h_->RunFor(kSecond);
  h_->world.timers.Jump(60 * kSecond);
  h_->RunFor(kSecond);
  EXPECT_EQ(waits->finishes, 1);
  EXPECT_EQ(waits->status.code(), absl::StatusCode::kResourceExhausted) << waits->status;
  h_->Cancel(busy);
}

TEST_F(RouterTurnsTest, UnderLoadTwoModelsTakeTurnsAndNobodyStarves) {
  Begin(150 * kMiB);
  Settle();
  h_->world.rules.bytes_per_second = 80 * kMiB;
  for (int i = 0; i < 600; ++i) {
    h_->Generate(i % 2 == 0 ? "a" : "b", 30);
    h_->RunFor(50 * kMillisecond);
  }
  ASSERT_TRUE(h_->RunUntil([&] { return h_->clients.back()->finishes > 0; }));
  h_->RunFor(10 * kSecond);
  for (const auto& client : h_->clients) {
    EXPECT_TRUE(client->status.ok() && client->finishes == 1) << client->status;
  }
  EXPECT_LT(h_->world.grows, 40u);  // for 600 changes from one model to the other
}

}  // namespace
}  // namespace switchyard::supervisor
