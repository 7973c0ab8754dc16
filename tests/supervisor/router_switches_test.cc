// What operators ask for again and again keeps nobody out for good.

#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

class RouterSwitches : public RouterFixture {
 protected:
  Nanos Now() const { return h_->world.timers.Now(); }
  // `models` are asked for one after the other, each when the one before it is there, with `pause`
  // in between, until `done`.
  void Script(const std::vector<std::string>& models, Nanos pause,
              const std::function<bool()>& done) {
    const Nanos end = Now() + 100 * kSecond;
    for (size_t i = 0; !done() && Now() < end; ++i) {
      ASSERT_TRUE(Done(h_->Switch(models[i % models.size()], /*make_default=*/false)));
      h_->RunFor(pause);
    }
  }
};

TEST_F(RouterSwitches, AskingForWhatIsThereTakesNoTurn) {
  Begin(150 * kMiB);
  Settle();
  ASSERT_TRUE(Done(h_->Switch("a")));
  const Nanos then = Now();
  auto waits = h_->Generate("b", 1);
  Script({"a"}, kSecond, [&] { return waits->finishes > 0; });
  EXPECT_EQ(waits->status, absl::OkStatus());
  EXPECT_LT(Now() - then, 4 * kSecond);  // the turn of the first one, which brought it in
}

TEST_F(RouterSwitches, NorDoesItPutOffAnotherSwitch) {
  Begin(150 * kMiB);
  Settle();
  auto busy = h_->Generate("a", 1'000'000);
  ASSERT_TRUE(h_->RunUntil([&] { return busy->tokens > 0; }));
  ASSERT_TRUE(Done(h_->Switch("a")));
  const Nanos then = Now();
  auto other = h_->Switch("b");
  Script({"a"}, kSecond, [&] { return other->finishes > 0; });
  EXPECT_EQ(other->status, absl::OkStatus());
  EXPECT_LT(Now() - then, 12 * kSecond);  // a drain
  h_->Cancel(busy);
}

TEST_F(RouterSwitches, TheOneThatBroughtItsModelInHasATurn) {
  Begin(150 * kMiB);
  Settle();
  ASSERT_TRUE(Done(h_->Switch("a")));
  const Nanos then = Now();
  auto waits = h_->Generate("b", 1);
  ASSERT_TRUE(Done(waits));
  EXPECT_GT(Now() - then, 1900 * kMillisecond);
}

// A worker holds memory for weights before they have been copied into it.
TEST_F(RouterSwitches, IsReadyWhenItsWeightsHaveArrived) {
  rules_.tells_early = true;
  Begin(150 * kMiB);
  Settle();
  h_->world.rules.faults.slow_ack = 1;
  auto op = h_->Switch("a");
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").resident_bytes() == 80 * kMiB; }));
  EXPECT_EQ(op->finishes, 0);
  EXPECT_EQ(h_->StatusOf("a").state(), v1::LOADING);
  ASSERT_TRUE(Done(op));
  EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);
  const Nanos then = Now();
  h_->world.rules.faults.slow_ack = 0;
  auto waits = h_->Generate("b", 1);
  ASSERT_TRUE(Done(waits));
  EXPECT_GT(Now() - then, 1900 * kMillisecond) << "its turn begins when it is ready";
}

// A swap takes 2 s, so a switch takes 6 of everybody's time.
TEST_F(RouterSwitches, TwoThatAreAskedForInTurnsLeaveAThirdItsOwn) {
  Begin(150 * kMiB);
  Settle();
  h_->world.rules.bytes_per_second = 40 * kMiB;
  ASSERT_TRUE(Done(h_->Switch("a")));
  ASSERT_TRUE(Done(h_->Switch("b")));
  for (int i = 0; i < 3; ++i) {
    const Nanos then = Now();
    auto waits = h_->Generate("c", 1);
    Script({"a", "b"}, 0, [&] { return waits->finishes > 0; });
    EXPECT_EQ(waits->status, absl::OkStatus());
    EXPECT_LT(Now() - then, 35 * kSecond);
    EXPECT_GT(Now() - then, 10 * kSecond) << "operators go first as long as there is time";
  }
}

}  // namespace
}  // namespace switchyard::supervisor
