// What becomes of a worker that beats, and looks at no request or call that it is sent. No model
// here is probed.

#include <utility>
#include <vector>

#include "supervisor/backoff.h"
#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

class RouterDeaf : public RouterFixture {
 protected:
  // Long enough for a request to meet a worker's end, and the start of the next.
  void BeginPatient() {
    options_.probe_interval = 0;
    auto catalog = Catalog();
    for (ModelEntry& entry : catalog) entry.model.mutable_max_wait()->set_seconds(1000);
    Begin(300 * kMiB, 1024 * kMiB, std::move(catalog));
    Settle();
  }
  bool Done(const std::shared_ptr<CallView>& call) {
    return h_->RunUntil([&] { return call->finishes > 0; });
  }
  using RouterFixture::Done;
};

TEST_F(RouterDeaf, ACallGoesToTheNextWorker) {
  BeginPatient();
  const Nanos then = h_->world.timers.Now();
  h_->world.WorkerOf("a")->Deafen();
  auto call = h_->Tokenize("a");
  ASSERT_TRUE(Done(call));
  EXPECT_EQ(call->status, absl::OkStatus());
  EXPECT_GE(h_->world.timers.Now() - then, 60 * kSecond);
  EXPECT_LT(h_->world.timers.Now() - then, 63 * kSecond);
  EXPECT_NE(h_->StatusOf("a").last_failure().find("hung: for 60 s it has not looked at"),
            std::string::npos)
      << h_->StatusOf("a").last_failure();
  EXPECT_EQ(h_->StatusOf("a").restarts(), 1u);
}

TEST_F(RouterDeaf, ARequestGoesToTheNextWorkerWhetherItsModelIsResidentOrNot) {
  BeginPatient();
  ASSERT_TRUE(Done(h_->Switch("b")));
  for (const char* name : {"a", "b"}) h_->world.WorkerOf(name)->Deafen();
  for (const auto& client : {h_->Generate("a", 3), h_->Generate("b", 3)}) {
    ASSERT_TRUE(Done(client));
    EXPECT_EQ(client->status, absl::OkStatus());
  }
}

TEST_F(RouterDeaf, WhatRunsInItDoesNotHideIt) {
  BeginPatient();
  auto busy = h_->Generate("a", 1'000'000);
  ASSERT_TRUE(h_->RunUntil([&] { return busy->tokens > 3; }));
  h_->world.WorkerOf("a")->Deafen();
  auto call = h_->Tokenize("a");
  ASSERT_TRUE(Done(call));
  EXPECT_EQ(call->status, absl::OkStatus());
  EXPECT_EQ(busy->status.code(), absl::StatusCode::kAborted);
}

TEST_F(RouterDeaf, WhoAsksAgainAndAgainDoesNotPutItOff) {
  BeginPatient();
  h_->world.WorkerOf("a")->Deafen();
  for (int i = 0; i < 61; ++i) {
    h_->Cancel(h_->Generate("a", 3));
    h_->RunFor(kSecond);
  }
  EXPECT_EQ(h_->StatusOf("a").restarts(), 1u);
}

// That the worker tells their ends is no look at anything else.
TEST_F(RouterDeaf, NorDoWhatItHasLookedAtBeforeAndItsEnds) {
  BeginPatient();
  std::vector<std::shared_ptr<ClientView>> running;
  for (int i = 0; i < 4; ++i) running.push_back(h_->Generate("a", 1'000'000));
  ASSERT_TRUE(h_->RunUntil([&] { return running.back()->tokens > 0; }));
  h_->world.WorkerOf("a")->Deafen();
  h_->Tokenize("a");
  for (const auto& client : running) {
    h_->RunFor(15 * kSecond);
    h_->Cancel(client);
  }
  h_->RunFor(2 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 1u);
}

TEST_F(RouterDeaf, IfEveryWorkerIsTheModelHasFailedInTheEnd) {
  BeginPatient();
  h_->world.rules.faults.deaf = 1;
  Kill();
  auto call = h_->Tokenize("a");
  ASSERT_TRUE(Done(call));
  EXPECT_EQ(call->status.code(), absl::StatusCode::kUnavailable) << call->status;
  while (h_->StatusOf("a").state() != v1::FAILED && h_->StatusOf("a").restarts() < 9) {
    ASSERT_TRUE(Done(h_->Tokenize("a")));
  }
  EXPECT_EQ(h_->StatusOf("a").state(), v1::FAILED);
  EXPECT_EQ(h_->StatusOf("a").restarts(), static_cast<uint32_t>(kFailuresUntilFailed));
  h_->world.rules.faults.deaf = 0;
}

TEST_F(RouterDeaf, OneThatIsOnlySlowIsLeftAlone) {
  BeginPatient();
  h_->world.rules.validates = 59 * kSecond;
  auto first = h_->Tokenize("a");
  auto second = h_->Tokenize("a");
  auto client = h_->Generate("a", 3);
  ASSERT_TRUE(Done(client));
  EXPECT_EQ(first->status, absl::OkStatus());
  EXPECT_EQ(second->status, absl::OkStatus());
  EXPECT_EQ(client->status, absl::OkStatus());
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
}

// Those behind it are looked at all the time.
TEST_F(RouterDeaf, OneThatSticksAtARequestIsFoundOutThoughItLooksAtOthers) {
  BeginPatient();
  h_->world.WorkerOf("a")->StickAtNext();
  auto client = h_->Generate("a", 3);
  for (int i = 0; i < 70 && client->finishes == 0; ++i) {
    ASSERT_TRUE(Done(h_->Tokenize("a")));
    h_->RunFor(kSecond);
  }
  ASSERT_TRUE(Done(client));
  EXPECT_EQ(client->status, absl::OkStatus());
  EXPECT_EQ(h_->StatusOf("a").restarts(), 1u);
}

// Each of them comes to its end, in the order in which they were sent.
TEST_F(RouterDeaf, AQueueThatTakesMinutesAltogetherIsNone) {
  BeginPatient();
  h_->world.rules.validates = 20 * kSecond;
  std::vector<std::shared_ptr<CallView>> calls;
  for (int i = 0; i < 10; ++i) calls.push_back(h_->Tokenize("a"));
  for (const auto& call : calls) {
    ASSERT_TRUE(Done(call));
    EXPECT_EQ(call->status, absl::OkStatus());
  }
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
}

// Long after the last of them it is asked again.
TEST_F(RouterDeaf, WhatItHasNotBeenAskedItNeedNotLookAt) {
  BeginPatient();
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(Done(h_->Tokenize("a")));
    h_->RunFor(61 * kSecond);
  }
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
}

// The answer came while the supervisor stood still, and is read after the alarm that is late.
TEST_F(RouterDeaf, ItIsLookedAtTwice) {
  BeginPatient();
  const auto deliver = h_->world.on_message;
  std::vector<std::pair<Incarnation, v1::FromWorker>> queued;
  h_->world.on_message = [&](Incarnation worker, const v1::FromWorker& message) {
    queued.emplace_back(worker, message);
  };
  auto call = h_->Tokenize("a");
  h_->RunFor(100 * kMillisecond);
  h_->world.timers.Jump(70 * kSecond);
  h_->RunFor(100 * kMillisecond);
  h_->world.on_message = deliver;
  for (const auto& [worker, message] : queued) deliver(worker, message);
  h_->RunFor(2 * kSecond);
  EXPECT_EQ(call->status, absl::OkStatus());
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
}

}  // namespace
}  // namespace switchyard::supervisor
