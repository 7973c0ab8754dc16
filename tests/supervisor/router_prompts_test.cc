// A sequence runs from the first step of its prompt on, and says so with its first token only.

#include "supervisor/retry_after.h"
#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

class RouterPrompts : public RouterFixture {
 protected:
  // A request that stays in its prompt for longer than anybody waits.
  std::shared_ptr<ClientView> Reads(const std::string& model) {
    h_->world.rules.prompt_steps = 1'000'000;
    auto client = h_->Generate(model, 1);
    EXPECT_TRUE(h_->RunUntil([&] { return h_->StatusOf(model).state() == v1::RESIDENT; }));
    h_->RunFor(3 * kSecond);  // its least turn
    h_->world.rules.prompt_steps = 0;
    EXPECT_EQ(client->starts, 0u);
    return client;
  }
};

TEST_F(RouterPrompts, HostMemoryIsKeptForThemBeforeTheDrainBegins) {
  Begin(150 * kMiB, 400 * kMiB);
  Settle();
  auto reads = Reads("a");
  auto op = h_->Switch("b");
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::DRAINING; }));
  EXPECT_EQ(h_->router->HostAccount().paused("a"), 10 * kMiB);
  ASSERT_TRUE(Done(op));
  EXPECT_EQ(op->status, absl::OkStatus());
  EXPECT_EQ(h_->world.pauses, 1u);
  EXPECT_LT(h_->router->HostAccount().paused("a"), 10 * kMiB);
  EXPECT_GT(h_->router->HostAccount().paused("a"), 0u);
  // It comes back, and goes on where it was.
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::RESIDENT; }));
  h_->RunFor(kSecond);
  EXPECT_EQ(h_->router->HostAccount().paused("a"), 0u);
  EXPECT_EQ(reads->finishes, 0);
  h_->Cancel(reads);
}

TEST_F(RouterPrompts, OneThatCannotBePausedIsWaitedForNoLongerThanADrain) {
  Begin(150 * kMiB, 165 * kMiB);  // two masters, and no room for a pool
  Settle();
  auto reads = Reads("a");
  auto op = h_->Switch("b");
  ExpectGivenUp(op, "a needs 10.0 MiB of host memory to pause");
  h_->Cancel(reads);
}

TEST_F(RouterPrompts, NorIsOneWhoseWorkerWouldHaveToEndAndThatIsRemembered) {
  Begin(105 * kMiB);  // any of the models fits, but not beside another's fixed bytes
  Settle();
  auto reads = Reads("a");
  auto op = h_->Switch("b");
  ExpectGivenUp(op, "a cannot pause");
  auto again = h_->Switch("b");
  ASSERT_TRUE(h_->RunUntil([&] { return again->finishes > 0; }, 100 * kMillisecond));
  EXPECT_EQ(again->status, op->status);
  // Until it is done.
  h_->Cancel(reads);
  h_->RunFor(100 * kMillisecond);
  auto last = h_->Switch("b");
  ASSERT_TRUE(Done(last));
  EXPECT_EQ(last->status, absl::OkStatus());
}

// Who comes while it is remembered waits in the worker behind nobody, and is not taken for it.
TEST_F(RouterPrompts, ItsFirstTokenChangesNothingOfThat) {
  Begin(105 * kMiB);
  Settle();
  h_->world.rules.prompt_steps = 4'000;  // about 20 s
  auto reads = h_->Generate("a", 1'000'000);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::RESIDENT; }));
  h_->RunFor(3 * kSecond);
  h_->world.rules.prompt_steps = 0;
  auto op = h_->Switch("b");
  ASSERT_TRUE(Done(op));
  EXPECT_FALSE(op->status.ok());
  ASSERT_TRUE(h_->RunUntil([&] { return reads->tokens > 0; }));
  auto again = h_->Switch("b");
  ASSERT_TRUE(h_->RunUntil([&] { return again->finishes > 0; }, 100 * kMillisecond));
  EXPECT_FALSE(again->status.ok());
  h_->Cancel(reads);
}

TEST_F(RouterPrompts, AnIdleModelGivesWayBeforeOneThatReadsAPrompt) {
  Begin(250 * kMiB);
  Settle();
  auto reads = Reads("a");
  ASSERT_TRUE(Done(h_->Generate("b", 1)));  // used after a
  h_->RunFor(3 * kSecond);
  ASSERT_TRUE(Done(h_->Switch("c")));
  EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);
  EXPECT_NE(h_->StatusOf("b").state(), v1::RESIDENT);
  h_->Cancel(reads);
}

}  // namespace
}  // namespace switchyard::supervisor
