// The router's end: it comes in time, whatever its workers do. DrainAndCheck says what that is.

#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

class RouterEnd : public RouterFixture {
 protected:
  // The worker of `a` has stopped, and does not go when it is killed.
  void BeginStuck() {
    Begin(300 * kMiB);
    Settle();
    h_->world.rules.faults.unkillable = 1;
    h_->world.WorkerOf("a")->Hang();
  }
  // How long it takes.
  Nanos End(Nanos grace) {
    const Nanos took = h_->DrainAndCheck(grace);
    EXPECT_EQ(h_->violation(), "");
    h_.reset();
    return took;
  }
};

TEST_F(RouterEnd, ComesThoughAWorkerCannotBeReaped) {
  BeginStuck();
  EXPECT_LE(End(10 * kSecond), 1300 * kMillisecond);
}

TEST_F(RouterEnd, ComesWhenTheGraceIsOverThoughAWorkerCannotBeReaped) {
  Begin(300 * kMiB);
  auto busy = h_->Generate("a", 1'000'000);
  ASSERT_TRUE(h_->RunUntil([&] { return busy->tokens > 0; }));
  h_->world.rules.faults.unkillable = 1;
  h_->world.WorkerOf("a")->Hang();
  EXPECT_LE(End(2 * kSecond), 3300 * kMillisecond);
  EXPECT_EQ(busy->status.code(), absl::StatusCode::kAborted);
}

TEST_F(RouterEnd, ComesThoughAWorkerWasBeingKilledAlready) {
  BeginStuck();
  h_->RunFor(6 * kSecond);  // no heartbeat for 5 s
  EXPECT_LE(End(10 * kSecond), 1300 * kMillisecond);
}

TEST_F(RouterEnd, ComesThoughAWorkerIsInQuarantine) {
  BeginStuck();
  h_->RunFor(16 * kSecond);
  ASSERT_EQ(h_->StatusOf("a").state(), v1::FAILED);
  EXPECT_LE(End(10 * kSecond), 1300 * kMillisecond);
}

TEST_F(RouterEnd, ComesWhenTheLastOfThemHasEnded) {
  Begin(300 * kMiB);
  Settle();
  EXPECT_LE(End(10 * kSecond), 100 * kMillisecond);
}

}  // namespace
}  // namespace switchyard::supervisor
