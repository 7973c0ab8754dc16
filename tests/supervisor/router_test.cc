// The router's promises, one scene each, in a world without faults unless the scene makes one.

#include "supervisor/router.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "supervisor/retry_after.h"
#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

class RouterTest : public RouterFixture {};

TEST_F(RouterTest, StartsWorkersAndFillsMasters) {
  Begin(300 * kMiB);
  Settle();
  for (const char* name : {"a", "b", "c"}) {
    EXPECT_EQ(h_->StatusOf(name).state(), v1::WARM) << name;
    EXPECT_GT(h_->StatusOf(name).worker_pid(), 0);
    EXPECT_TRUE(h_->world.health["model/" + std::string(name)]);
  }
  EXPECT_TRUE(h_->world.health[""]);
  EXPECT_EQ(h_->router->GetStatus().host().used_bytes(), 240 * kMiB);
}

TEST_F(RouterTest, MastersBeyondTheHostBudgetStayCold) {
  Begin(300 * kMiB, 170 * kMiB);
  Settle();
  EXPECT_EQ(h_->world.fills, 2u);
  EXPECT_EQ(h_->StatusOf("c").state(), v1::COLD);
  // A request for it drops another's master, and is served.
  auto client = h_->Generate("c", 3);
  ASSERT_TRUE(Done(client));
  EXPECT_TRUE(client->status.ok()) << client->status;
}

TEST_F(RouterTest, AModelComesInWhileItsMasterIsStillBeingFilled) {
  options_.prefetch_at_start = false;
  Begin(300 * kMiB);
  Settle();
  auto op = h_->Switch("a");
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").resident_bytes() > 0; }));
  EXPECT_EQ(h_->world.filled.begin()->second, false);
  ASSERT_TRUE(Done(op));
  EXPECT_TRUE(op->status.ok()) << op->status;
  for (size_t i = 1; i < op->events.size(); ++i) {
    EXPECT_GE(op->events[i].bytes_done(), op->events[i - 1].bytes_done());
  }
}

TEST_F(RouterTest, AFillingThatFailsWhileTheModelComesInFailsTheSwitchOnce) {
  options_.prefetch_at_start = false;
  Begin(300 * kMiB);
  Settle();
  auto op = h_->Switch("a");
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").resident_bytes() > 0; }));
  h_->world.rules.faults.fill_fails = 1;
  ASSERT_TRUE(Done(op));
  EXPECT_NE(op->status.message().find("truncated checkpoint"), std::string::npos) << op->status;
  h_->world.rules.faults.fill_fails = 0;
  auto client = h_->Generate("a", 2);
  ASSERT_TRUE(Done(client));
  EXPECT_TRUE(client->status.ok()) << client->status;
}

// Images of 80 MiB and a host budget of 60: each has a ring of 15.
TEST_F(RouterTest, ModelsLargerThanTheHostBudgetAreStreamed) {
  Begin(150 * kMiB, 60 * kMiB);
  Settle();
  for (const char* name : {"a", "b", "c"}) {
    EXPECT_TRUE(h_->StatusOf(name).streamed());
    EXPECT_EQ(h_->StatusOf(name).state(), v1::COLD) << name;
    EXPECT_EQ(h_->StatusOf(name).master_bytes(), 15 * kMiB);
  }
  for (const char* name : {"a", "b", "a", "c"}) {
    auto op = h_->Switch(name);
    ASSERT_TRUE(Done(op));
    EXPECT_TRUE(op->status.ok()) << op->status;
    EXPECT_EQ(h_->StatusOf(name).state(), v1::RESIDENT);
    EXPECT_LE(op->events.back().bytes_total(), 80 * kMiB) << "it is read once, on its way";
    auto client = h_->Generate(name, 3);
    ASSERT_TRUE(Done(client));
    EXPECT_TRUE(client->status.ok()) << client->status;
  }
  EXPECT_EQ(h_->StatusOf("a").state(), v1::COLD);
  EXPECT_EQ(h_->router->GetStatus().host().used_bytes(), 45 * kMiB);
}

TEST_F(RouterTest, ARequestBringsItsModelIn) {
  Begin(300 * kMiB);
  Settle();
  auto client = h_->Generate("b", 5);
  ASSERT_TRUE(Done(client));
  EXPECT_TRUE(client->status.ok()) << client->status;
  EXPECT_EQ(client->tokens, 5u);
  EXPECT_EQ(client->waits, 1u);
  EXPECT_GT(client->timings.swap_ms(), 0);
  EXPECT_EQ(h_->StatusOf("b").state(), v1::RESIDENT);
  // Resident now: nothing to wait for.
  auto second = h_->Generate("b", 5);
  ASSERT_TRUE(Done(second));
  EXPECT_EQ(second->waits, 0u);
  EXPECT_EQ(second->timings.swap_ms(), 0);
}

TEST_F(RouterTest, ABadRequestCausesNoSwap) {
  Begin(300 * kMiB);
  Settle();
  auto client = h_->Generate("a", 5, 0, 0, "bad");
  ASSERT_TRUE(Done(client));
  EXPECT_EQ(client->status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(h_->world.grows, 0u);
}

TEST_F(RouterTest, RefusesAtOnce) {
  options_.queue_limit = 2;
  Begin(300 * kMiB);
  EXPECT_EQ(h_->Generate("nobody", 1)->status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(h_->Generate("a", 1, -1)->status.code(), absl::StatusCode::kDeadlineExceeded);
  auto first = h_->Generate("", 1);  // the default model is the first
  auto second = h_->Generate("a", 1);
  const absl::Status full = h_->Generate("a", 1)->status;
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(full.message(),
            "2 requests already wait for a, which is as many as may (queue_limit in the file of "
            "--config): try again later");
  EXPECT_EQ(h_->Generate("b", 1)->finishes, 0);
  EXPECT_TRUE(Done(first));
  EXPECT_TRUE(Done(second));
}

TEST_F(RouterTest, WhoWillRunAtOnceIsNotQueued) {
  options_.queue_limit = 2;
  Begin(300 * kMiB);
  auto first = h_->Generate("a", 1);
  ASSERT_TRUE(Done(first));
  std::vector<std::shared_ptr<ClientView>> clients;
  const auto ask = [&](size_t n) {
    for (size_t i = 0; i < n; ++i) clients.push_back(h_->Generate("a", 1000));
  };
  const auto refused = [&] {
    return std::count_if(clients.begin(), clients.end(), [](const auto& client) {
      return client->status.code() == absl::StatusCode::kResourceExhausted;
    });
  };
  ask(rules_.max_sequences + 3);
  EXPECT_EQ(refused(), 1) << "idle: its slots, and two that wait";
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").running() == rules_.max_sequences; }));
  ask(1);
  EXPECT_EQ(refused(), 2) << "its slots are taken, and two wait";
  h_->Cancel(clients[0]);
  ask(2);
  EXPECT_EQ(refused(), 3) << "one slot is free again";
}

TEST_F(RouterTest, WhoFindsAQueueFullIsToldWhenToComeBack) {
  options_.queue_limit = 1;
  Begin(300 * kMiB);
  auto first = h_->Generate("a", 1);
  EXPECT_EQ(RetryAfter(h_->Generate("a", 1)->status), 5 * kSecond);
  EXPECT_EQ(RetryAfter(h_->Generate("nobody", 1)->status), 0);

  v1::DetokenizeRequest request;
  request.set_model("c");
  std::vector<absl::Status> ended;
  for (int i = 0; i < 2; ++i) {
    h_->router->Detokenize(request, [&](absl::StatusOr<v1::DetokenizeReply> reply) {
      ended.push_back(reply.status());
    });
  }
  ASSERT_EQ(ended.size(), 1u);
  EXPECT_EQ(ended[0].code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RetryAfter(ended[0]), 5 * kSecond);
  ASSERT_TRUE(h_->RunUntil([&] { return ended.size() == 2; }));
  EXPECT_TRUE(ended[1].ok()) << ended[1];
}

TEST_F(RouterTest, SwitchTellsPhasesAndSetsTheDefault) {
  Begin(150 * kMiB);
  Settle();
  ASSERT_TRUE(Done(h_->Switch("a")));
  auto op = h_->Switch("b");
  ASSERT_TRUE(Done(op));
  EXPECT_TRUE(op->status.ok());
  EXPECT_EQ(op->events.back().bytes_done(), op->events.back().bytes_total());
  EXPECT_GT(op->events.back().gb_per_s(), 0);
  std::set<v1::SwitchPhase> phases;
  for (const auto& event : op->events) phases.insert(event.phase());
  EXPECT_EQ(phases.count(v1::RELEASING), 1u);
  EXPECT_EQ(phases.count(v1::SWITCH_LOADING), 1u);
  EXPECT_EQ(h_->router->GetStatus().default_model(), "b");
  // a lost only what b needed: KV first, then chunks from the end.
  EXPECT_EQ(h_->StatusOf("a").state(), v1::WARM);
  EXPECT_EQ(h_->StatusOf("a").kv_bytes(), 0u);
  EXPECT_EQ(h_->StatusOf("a").resident_bytes(), 40 * kMiB);
  // Already there: ready at once. A Load does not change the default.
  auto again = h_->Switch("b");
  EXPECT_EQ(again->finishes, 1);
  ASSERT_TRUE(Done(h_->Switch("c", false)));
  EXPECT_EQ(h_->router->GetStatus().default_model(), "b");
}

TEST_F(RouterTest, SwitchesToOneModelAreOne) {
  Begin(150 * kMiB);
  Settle();
  std::vector<std::shared_ptr<OperatorView>> ops;
  for (int i = 0; i < 5; ++i) ops.push_back(h_->Switch("a"));
  for (auto& op : ops) ASSERT_TRUE(Done(op));
  EXPECT_EQ(h_->world.grows, 1u);
}

TEST_F(RouterTest, TheLastSwitchDecidesTheDefault) {
  Begin(150 * kMiB);
  h_->Switch("a");
  h_->Switch("b");
  auto last = h_->Switch("c");
  ASSERT_TRUE(Done(last));
  Settle();
  EXPECT_EQ(h_->router->GetStatus().default_model(), "c");
  EXPECT_EQ(h_->StatusOf("c").state(), v1::RESIDENT);
}

TEST_F(RouterTest, ASlowReaderIsSuspendedThenEnded) {
  Begin(300 * kMiB);
  Settle();
  auto slow = h_->Generate("a", 1000);
  slow->reads = false;
  auto other = h_->Generate("a", 1000);
  ASSERT_TRUE(Done(other));
  EXPECT_LT(slow->tokens, 20u);
  h_->Read(slow);
  h_->RunFor(kSecond);
  EXPECT_GT(slow->tokens, 20u);
  slow->reads = false;
  ASSERT_TRUE(Done(slow));
  EXPECT_EQ(slow->status.code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(RouterTest, OfTooManySlowReadersTheFirstIsEnded) {
  options_.most_suspended = 2;
  Begin(300 * kMiB);
  Settle();
  std::vector<std::shared_ptr<ClientView>> slow;
  for (const char* model : {"a", "a", "b"}) {
    slow.push_back(h_->Generate(model, 1000));
    slow.back()->reads = false;
    h_->RunFor(5 * kSecond);
  }
  ASSERT_EQ(slow[0]->finishes, 1);
  EXPECT_EQ(slow[0]->status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(slow[0]->status.message().find("as 2 others did"), std::string::npos)
      << slow[0]->status;
  // One that reads again makes room.
  h_->Read(slow[1]);
  slow.push_back(h_->Generate("b", 1000));
  slow.back()->reads = false;
  h_->RunFor(5 * kSecond);
  EXPECT_EQ(slow[2]->finishes, 0);
  for (const auto& client : slow) h_->Cancel(client);
}

// Ids are handed out in turn: one that ran a stranger's code could name another model's.
TEST_F(RouterTest, AWorkerSpeaksOfItsOwnModelsRequestsOnly) {
  Begin(300 * kMiB);
  Settle();
  ASSERT_TRUE(Done(h_->Switch("a")));
  ASSERT_TRUE(Done(h_->Switch("b")));
  h_->world.WorkerOf("a")->Wedge();
  auto client = h_->Generate("a", 3);
  const Incarnation other = h_->world.WorkerOf("b")->incarnation();
  v1::FromWorker message;
  message.mutable_accepted()->set_request_id(client->id);
  h_->router->OnWorkerMessage(other, message);
  auto* event = message.mutable_step()->add_events();
  event->set_request_id(client->id);
  event->mutable_event()->set_text("not its own");
  event->mutable_event()->add_ids(1);
  h_->router->OnWorkerMessage(other, message);
  EXPECT_EQ(client->tokens, 0u);
  message.mutable_rejected()->set_request_id(client->id);
  message.mutable_rejected()->set_code(3);
  h_->router->OnWorkerMessage(other, message);
  EXPECT_EQ(client->finishes, 0);
  h_->world.WorkerOf("a")->Unwedge();
  ASSERT_TRUE(Done(client));
  EXPECT_TRUE(client->status.ok()) << client->status;
  EXPECT_EQ(client->tokens, 3u);
}

TEST_F(RouterTest, CancellationAndDeadlinesReachEveryStage) {
  Begin(150 * kMiB);
  auto unsent = h_->Generate("a", 1000);
  h_->Cancel(unsent);
  auto late = h_->Generate("a", 100000, 20 * kSecond);
  ASSERT_TRUE(h_->RunUntil([&] { return late->tokens > 0; }));
  auto waiting = h_->Generate("b", 5, 2 * kSecond);
  ASSERT_TRUE(Done(waiting));
  EXPECT_EQ(waiting->status.code(), absl::StatusCode::kDeadlineExceeded);
  ASSERT_TRUE(Done(late));
  EXPECT_EQ(late->status.code(), absl::StatusCode::kDeadlineExceeded);
  Settle();
  EXPECT_EQ(h_->world.WorkerOf("a")->sequences(), 0u);
  EXPECT_EQ(h_->world.WorkerOf("b")->sequences(), 0u);
}

TEST_F(RouterTest, UnloadEndsTheWorkerAndTheMaster) {
  Begin(300 * kMiB);
  Settle();
  ASSERT_TRUE(Done(h_->Switch("a")));
  bool replied = false;
  h_->router->Unload("a", [&](absl::StatusOr<v1::UnloadReply> reply) { replied = reply.ok(); });
  ASSERT_TRUE(h_->RunUntil([&] { return replied; }));
  EXPECT_EQ(h_->world.WorkerOf("a"), nullptr);
  EXPECT_EQ(h_->StatusOf("a").state(), v1::COLD);
  EXPECT_EQ(h_->StatusOf("a").master_bytes(), 0u);
  EXPECT_TRUE(h_->world.health["model/a"]);
  auto client = h_->Generate("a", 1);
  ASSERT_TRUE(Done(client));
  EXPECT_TRUE(client->status.ok());
}

TEST_F(RouterTest, PrefetchTellsWhenTheMasterIsThere) {
  options_.prefetch_at_start = false;
  Begin(300 * kMiB);
  uint64_t bytes = 0;
  h_->router->Prefetch("b", [&](absl::StatusOr<v1::PrefetchReply> reply) {
    if (reply.ok()) bytes = reply->master_bytes();
  });
  ASSERT_TRUE(h_->RunUntil([&] { return bytes > 0; }));
  EXPECT_EQ(bytes, 80 * kMiB);
  EXPECT_EQ(h_->world.fills, 1u);
}

TEST_F(RouterTest, IdleModelsSleep) {
  auto catalog = Catalog();
  catalog[0].model.mutable_idle_timeout()->set_seconds(30);
  Begin(300 * kMiB, 1024 * kMiB, catalog);
  auto client = h_->Generate("a", 1);
  ASSERT_TRUE(Done(client));
  h_->RunFor(20 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);
  h_->RunFor(20 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").state(), v1::WARM);
  EXPECT_EQ(h_->StatusOf("a").resident_bytes(), 0u);
}

TEST_F(RouterTest, TokenizeNeedsNoLease) {
  Begin(300 * kMiB);
  int ids = 0;
  v1::TokenizeRequest request;
  request.set_model("c");
  h_->router->Tokenize(request, [&](absl::StatusOr<v1::TokenizeReply> reply) {
    if (reply.ok()) ids = reply->ids_size();
  });
  ASSERT_TRUE(h_->RunUntil([&] { return ids > 0; }));
  EXPECT_EQ(h_->world.grows, 0u);
}

TEST_F(RouterTest, DrainLetsRunningRequestsFinish) {
  Begin(300 * kMiB);
  auto quick = h_->Generate("a", 100);
  auto endless = h_->Generate("a", 1000000);
  ASSERT_TRUE(h_->RunUntil([&] { return endless->tokens > 0; }));
  const Nanos then = h_->world.timers.Now();
  h_->DrainAndCheck(5 * kSecond);
  EXPECT_LT(h_->world.timers.Now() - then, 7 * kSecond);
  EXPECT_TRUE(quick->status.ok());
  EXPECT_EQ(endless->status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(h_->Generate("a", 1)->status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(absl::IsUnavailable(h_->router->Reload(Catalog()).status()));
  EXPECT_EQ(h_->violation(), "");
  h_.reset();
}

class CountingStatusSink final : public StatusSink {
 public:
  void Write(const v1::Status& status) override {
    ++writes;
    last = status;
  }
  void Finish(absl::Status status) override { ++finishes; }
  v1::Status last;
  int writes = 0;
  int finishes = 0;
};

TEST_F(RouterTest, WhoWatchesIsToldOfAReloadThatFailed) {
  Begin(300 * kMiB);
  auto sink = std::make_shared<CountingStatusSink>();
  h_->router->WatchStatus(1000, sink);
  h_->router->NoteReload(absl::InvalidArgumentError("no such field"));
  EXPECT_TRUE(h_->RunUntil([&] { return sink->last.reload_error() == "no such field"; }));
  h_->router->NoteReload(absl::OkStatus());
  EXPECT_TRUE(h_->RunUntil([&] { return sink->last.reload_error().empty(); }));
}

TEST_F(RouterTest, WatchingIsCoalesced) {
  Begin(300 * kMiB);
  auto sink = std::make_shared<CountingStatusSink>();
  h_->router->WatchStatus(1000, sink);
  EXPECT_EQ(sink->writes, 1);
  h_->Generate("a", 1000);
  h_->RunFor(4500 * kMillisecond);
  EXPECT_GE(sink->writes, 4);
  EXPECT_LE(sink->writes, 6);
  h_->router->StopWatching(sink.get());
  const int writes = sink->writes;
  Settle();
  EXPECT_EQ(sink->writes, writes);
}

}  // namespace
}  // namespace switchyard::supervisor
