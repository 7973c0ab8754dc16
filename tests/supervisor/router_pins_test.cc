// Pin keeps its promise or refuses, and operators' calls name their model.

#include "supervisor/pins.h"
#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

class RouterPins : public RouterFixture {
 protected:
  absl::Status Unload(const std::string& model) {
    std::optional<absl::Status> status;
    h_->router->Unload(model,
                       [&](absl::StatusOr<v1::UnloadReply> reply) { status = reply.status(); });
    h_->RunUntil([&] { return status.has_value(); });
    return status.value_or(absl::DeadlineExceededError("no answer"));
  }
  bool Resident(const std::string& model) { return h_->StatusOf(model).state() == v1::RESIDENT; }
};

TEST_F(RouterPins, APinnedModelBecomesResident) {
  Begin(150 * kMiB);
  ASSERT_TRUE(Done(h_->Switch("b")));
  EXPECT_EQ(h_->router->Pin("a", true), absl::OkStatus());
  EXPECT_TRUE(h_->RunUntil([&] { return Resident("a"); }));
  EXPECT_EQ(h_->router->GetStatus().default_model(), "b");  // as after a Load
  EXPECT_EQ(h_->router->Pin("a", true), absl::OkStatus());
}

TEST_F(RouterPins, MoreThanFitsTogetherIsRefusedWithTheArithmetic) {
  Begin(150 * kMiB);
  Settle();
  ASSERT_EQ(h_->router->Pin("a", true), absl::OkStatus());
  EXPECT_EQ(h_->router->Pin("b", true),
            absl::FailedPreconditionError(
                "b cannot be pinned: it needs 100.0 MiB (fixed 10.0 MiB + weights 80.0 MiB + "
                "smallest KV pool 10.0 MiB) beside what is pinned already, a 100.0 MiB (fixed "
                "10.0 MiB + weights 80.0 MiB + smallest KV pool 10.0 MiB), together 200.0 MiB, "
                "but cpu has 150.0 MiB, of which 0 B are kept in reserve: 150.0 MiB can be "
                "leased. Unpin another one first"));
  EXPECT_FALSE(h_->StatusOf("b").pinned());
  ASSERT_EQ(h_->router->Pin("a", false), absl::OkStatus());
  EXPECT_EQ(h_->router->Pin("b", true), absl::OkStatus());
}

TEST_F(RouterPins, APinnedModelThatCannotBeServedTakesNoRoom) {
  auto catalog = Catalog();
  catalog[0].model.set_pinned(true);
  catalog[0].problem = absl::FailedPreconditionError("too large");
  Begin(150 * kMiB, 1024 * kMiB, catalog);
  Settle();
  EXPECT_EQ(h_->router->Pin("b", true), absl::OkStatus());
}

TEST_F(RouterPins, AReloadNamesThePinsThatHaveNoRoomBesideOthers) {
  Begin(250 * kMiB);
  ASSERT_EQ(h_->router->Pin("c", true), absl::OkStatus());  // an operator's counts too
  ASSERT_TRUE(h_->RunUntil([&] { return Resident("c"); }));
  auto catalog = Catalog();
  catalog[0].model.set_pinned(true);
  EXPECT_EQ(h_->router->Reload(catalog)->problems_size(), 0);
  catalog[1].model.set_pinned(true);
  const auto reply = h_->router->Reload(catalog);
  ASSERT_EQ(reply->problems_size(), 1);
  EXPECT_EQ(reply->problems(0).model(), "b");
  EXPECT_EQ(reply->problems(0).reason().find("b cannot be pinned: it needs 100.0 MiB"), 0u)
      << reply->problems(0).reason();
  catalog[1].model.set_pinned(false);
  EXPECT_EQ(h_->router->Reload(catalog)->problems_size(), 0);
}

TEST_F(RouterPins, WhoIsUnpinnedIsNotLoadedForThePin) {
  Begin(150 * kMiB);
  ASSERT_TRUE(Done(h_->Switch("b")));
  ASSERT_EQ(h_->router->Pin("a", true), absl::OkStatus());
  ASSERT_EQ(h_->router->Pin("a", false), absl::OkStatus());
  Settle();
  EXPECT_TRUE(Resident("b"));
  EXPECT_FALSE(Resident("a"));
}

TEST_F(RouterPins, UnpinningAFailedModelWorks) {
  BeginPinned(300 * kMiB);
  Settle();
  h_->world.rules.faults.dies_at_start = 1;
  h_->world.WorkerOf("a")->Die("test");
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::FAILED; }));
  EXPECT_EQ(h_->router->Pin("a", true).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(h_->router->Pin("a", false), absl::OkStatus());
  EXPECT_FALSE(h_->StatusOf("a").pinned());
}

TEST_F(RouterPins, APinnedModelIsNotUnloaded) {
  Begin(300 * kMiB);
  Settle();
  ASSERT_EQ(h_->router->Pin("a", true), absl::OkStatus());
  const absl::Status status = Unload("a");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("unpin it first"), absl::string_view::npos) << status;
  ASSERT_EQ(h_->router->Pin("a", false), absl::OkStatus());
  EXPECT_EQ(Unload("a"), absl::OkStatus());
}

TEST_F(RouterPins, OperatorsNameTheirModel) {
  Begin(300 * kMiB);
  Settle();
  EXPECT_EQ(h_->router->Pin("", true).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Unload("").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(h_->Switch("")->status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(h_->Switch("", false)->status.code(), absl::StatusCode::kInvalidArgument);
  absl::Status prefetch;
  h_->router->Prefetch("",
                       [&](absl::StatusOr<v1::PrefetchReply> reply) { prefetch = reply.status(); });
  EXPECT_EQ(prefetch.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(h_->world.WorkerOf("a"), nullptr);
}

TEST_F(RouterPins, AStrangeNameIsShownEscapedAndCut) {
  Begin(300 * kMiB);
  EXPECT_EQ(h_->Generate("a\n\x1b[31m", 1)->status,
            absl::NotFoundError("there is no model named a\\x0A\\x1B[31m"));
  const absl::Status status = h_->Generate(std::string(100'000, 'x'), 1)->status;
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_LT(status.message().size(), 120u);
}

TEST_F(RouterPins, WhoeverPinsLeaveNoRoomIsRefusedAtOnceThoughItsWorkerDoesNotAnswer) {
  Begin(150 * kMiB);
  ASSERT_TRUE(Done(h_->Switch("a")));
  h_->world.WorkerOf("b")->Die("test");
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("b").restarts() == 1; }));
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("b").worker_pid() != 0; }));
  h_->world.WorkerOf("b")->Hang();  // before it has said a word
  ASSERT_EQ(h_->router->Pin("a", true), absl::OkStatus());
  const absl::Status status = h_->Generate("b", 1)->status;
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(status.message().find("kept by a (pinned) 130.0 MiB. Unpin a"), absl::string_view::npos)
      << status;
}

// The one that comes in is no reason to wait, either.
TEST_F(RouterPins, WhoeverPinsLeaveNoRoomIsRefusedAtOnceWhileOthersSwap) {
  Begin(230 * kMiB);
  ASSERT_TRUE(Done(h_->Switch("a")));
  ASSERT_EQ(h_->router->Pin("a", true), absl::OkStatus());
  ASSERT_TRUE(Done(h_->Switch("b")));
  ASSERT_EQ(h_->router->Pin("b", true), absl::OkStatus());
  ASSERT_EQ(h_->router->Pin("b", false), absl::OkStatus());
  ASSERT_TRUE(Done(h_->Generate("c", 1)));
  h_->world.rules.bytes_per_second = kMiB;  // b comes back in 80 s
  h_->Switch("b");
  h_->RunFor(kSecond);
  ASSERT_EQ(h_->StatusOf("b").state(), v1::LOADING);
  ASSERT_EQ(h_->router->Pin("b", true), absl::OkStatus());
  auto client = h_->Generate("c", 1);
  ASSERT_TRUE(h_->RunUntil([&] { return client->finishes > 0; }, kSecond));
  EXPECT_EQ(client->status.code(), absl::StatusCode::kResourceExhausted) << client->status;
}

TEST_F(RouterPins, APinnedModelComesBackWhenStrangersGo) {
  BeginPinned(150 * kMiB);
  ASSERT_TRUE(h_->RunUntil([&] { return Resident("a"); }));
  h_->world.WorkerOf("a")->Die("test");
  h_->Foreign("cpu", 120 * kMiB);
  h_->RunFor(10 * kSecond);
  auto client = h_->Generate("b", 1);
  ASSERT_TRUE(h_->RunUntil([&] { return client->finishes > 0; }, kSecond));
  EXPECT_EQ(client->status.code(), absl::StatusCode::kResourceExhausted) << client->status;
  h_->Foreign("cpu", 110 * kMiB);
  h_->RunFor(10 * kSecond);
  EXPECT_FALSE(Resident("a"));
  h_->Foreign("cpu", 0);
  EXPECT_TRUE(h_->RunUntil([&] { return Resident("a"); }, 10 * kSecond));
}

TEST_F(RouterPins, APinnedModelIsNotEvictedAndTheArithmeticIsTold) {
  BeginPinned(150 * kMiB);
  Settle();
  auto client = h_->Generate("b", 1);
  ASSERT_TRUE(Done(client));
  EXPECT_EQ(client->status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(client->status.message().find("a (pinned)"), std::string::npos) << client->status;
  ASSERT_TRUE(h_->router->Pin("a", false).ok());
  auto second = h_->Generate("b", 1);
  ASSERT_TRUE(Done(second));
  EXPECT_TRUE(second->status.ok()) << second->status;
}

// Nobody has to ask for it: a pin is a promise. Others are not evicted for its sake ever faster.
TEST_F(RouterPins, APinnedModelWhoseGrowthFailsIsTriedAgainLaterAndLaterAndGivenUp) {
  BeginPinned(300 * kMiB);
  h_->world.rules.faults.grow_fails = 1;
  std::set<int64_t> tries;  // the times at which one has failed
  h_->RunUntil(
      [&] {
        const v1::ModelStatus a = h_->StatusOf("a");
        const double age = a.last_failure_age_s();
        const auto at = h_->world.timers.Now() - static_cast<Nanos>(age * kSecond);
        if (!a.last_failure().empty()) tries.insert((at + kMillisecond / 2) / kMillisecond);
        return false;
      },
      120 * kSecond);
  EXPECT_EQ(tries.size(), 5u);
  EXPECT_EQ(h_->StatusOf("a").state(), v1::FAILED);
  EXPECT_NE(h_->StatusOf("a").error().find("out of memory"), std::string::npos);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
  h_->world.rules.faults.grow_fails = 0;
  EXPECT_TRUE(h_->RunUntil([&] { return Resident("a"); }, 301 * kSecond));
  EXPECT_EQ(h_->StatusOf("a").error(), "");
}

// From the third failure of a row on no resident model gives way to it, as to one that dies; for
// ten minutes, then it is tried once more.
TEST_F(RouterPins, OthersAreSparedByAPinnedModelThatCannotGrow) {
  BeginPinned(150 * kMiB);
  h_->world.rules.faults.grow_fails = 1;
  h_->RunFor(30 * kSecond);
  h_->world.rules.faults.grow_fails = 0;
  ASSERT_TRUE(Done(h_->Switch("b")));
  h_->RunFor(500 * kSecond);
  EXPECT_TRUE(Resident("b"));
  EXPECT_FALSE(Resident("a"));
  EXPECT_TRUE(h_->RunUntil([&] { return Resident("a"); }, 200 * kSecond));
}

// It wants to come in all the time, and cannot: what is free helps others meanwhile.
TEST_F(RouterPins, PoolsGrowWhileNobodyGivesWayToAPinnedModel) {
  BeginPinned(150 * kMiB);
  h_->Foreign("cpu", 40 * kMiB);
  h_->world.unloadable.insert("a");
  ASSERT_TRUE(h_->RunUntil([&] { return h_->world.failed_loads["a"] == 3; }));
  ASSERT_TRUE(Done(h_->Switch("b")));
  ASSERT_LT(h_->StatusOf("b").kv_bytes(), 40 * kMiB);
  h_->Foreign("cpu", 0);
  std::vector<std::shared_ptr<ClientView>> clients;
  for (int i = 0; i < 6; ++i) clients.push_back(h_->Generate("b", 100'000));
  h_->RunFor(5 * kSecond);
  EXPECT_EQ(h_->StatusOf("b").kv_bytes(), 40 * kMiB);
  EXPECT_EQ(h_->world.failed_loads["a"], 3u);
  for (const auto& client : clients) h_->Cancel(client);
}

TEST_F(RouterPins, APinnedModelWhoseMasterCannotBeFilledIsTriedAgain) {
  BeginPinned(300 * kMiB);
  h_->world.rules.faults.fill_fails = 1;
  h_->RunFor(3 * kSecond);
  ASSERT_FALSE(Resident("a"));
  h_->world.rules.faults.fill_fails = 0;
  EXPECT_TRUE(h_->RunUntil([&] { return Resident("a"); }, 61 * kSecond));
}

// `a` has given way to `b`, and there is no room for it as long as that is pinned.
class RouterPinsOverPaused : public RouterPins {
 protected:
  void SetUp() override {
    Begin(150 * kMiB);
    Settle();
    paused_ = h_->Generate("a", 100'000);
    ASSERT_TRUE(h_->RunUntil([&] { return paused_->tokens > 0; }));
    ASSERT_TRUE(Done(h_->Switch("b")));
    ASSERT_EQ(h_->router->Pin("b", true), absl::OkStatus());
    h_->RunFor(10 * kSecond);
    ASSERT_EQ(h_->StatusOf("a").paused(), 1u);
  }
  std::shared_ptr<ClientView> paused_;
};

TEST_F(RouterPinsOverPaused, WhatHasOutputGoesOnWhenThePinGoes) {
  EXPECT_EQ(Ask().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(paused_->finishes, 0);
  const uint32_t tokens = paused_->tokens;
  ASSERT_EQ(h_->router->Pin("b", false), absl::OkStatus());
  EXPECT_TRUE(h_->RunUntil([&] { return paused_->tokens > tokens; }, 10 * kSecond));
  h_->Cancel(paused_);
}

TEST_F(RouterPinsOverPaused, ItStandsInNobodysWay) {
  ExpectServes("b");
  EXPECT_EQ(h_->Switch("a")->status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(paused_->finishes, 0);
  h_->Cancel(paused_);
}

TEST_F(RouterPinsOverPaused, WhatHasOutputIsToldWhyWhenItsBoundIsOver) {
  ASSERT_TRUE(h_->RunUntil([&] { return paused_->finishes > 0; }, 31 * kSecond));
  EXPECT_EQ(paused_->status.code(), absl::StatusCode::kAborted);
  EXPECT_NE(paused_->status.message().find("kept by b (pinned) 100.0 MiB. Unpin b"),
            std::string::npos)
      << paused_->status;
}

TEST_F(RouterPins, APinnedModelComesInWhenAnotherIsUnpinned) {
  Begin(150 * kMiB, 1024 * kMiB, WithPinned(1, WithPinned(0)));
  Settle();
  ASSERT_NE(Resident("a"), Resident("b"));
  const std::string in = Resident("a") ? "a" : "b", out = Resident("a") ? "b" : "a";
  EXPECT_FALSE(h_->world.health["model/" + out]);
  ASSERT_EQ(h_->router->Pin(in, false), absl::OkStatus());
  EXPECT_TRUE(h_->RunUntil([&, out] { return Resident(out); }, 10 * kSecond));
}

// Nothing was read for it either, while it had no room; nor does anything else happen then.
TEST_F(RouterPins, APinnedModelWithoutAMasterIsReadWhenThereIsRoom) {
  options_.prefetch_at_start = false;
  Make(150 * kMiB, 1024 * kMiB, WithPinned(0));
  h_->world.rules.faults.launch_fails = 1;
  h_->router->Start();
  h_->Foreign("cpu", 120 * kMiB);
  h_->RunFor(3 * kSecond);
  h_->world.rules.faults.launch_fails = 0;
  h_->RunFor(60 * kSecond);
  ASSERT_EQ(h_->StatusOf("a").state(), v1::COLD);
  h_->Foreign("cpu", 0);
  EXPECT_TRUE(h_->RunUntil([&] { return Resident("a"); }, 60 * kSecond));
}

// Who has to wait for others' work anyway does not drive the others out of host memory in turns.
TEST_F(RouterPins, MastersOfPinnedModelsThatWaitAreNotReadInTurns) {
  options_.prefetch_at_start = false;
  auto catalog = Catalog();
  Begin(150 * kMiB, 100 * kMiB, catalog);
  auto busy = h_->Generate("a", 100'000);
  ASSERT_TRUE(h_->RunUntil([&] { return busy->tokens > 0; }));
  catalog[1].model.set_pinned(true);
  catalog[2].model.set_pinned(true);
  ASSERT_EQ(h_->Reload(catalog, "cpu", 150 * kMiB), absl::OkStatus());
  h_->RunFor(100 * kSecond);
  EXPECT_TRUE(Resident("a"));
  EXPECT_LE(h_->world.fills, 3u);
  h_->Cancel(busy);
}

// Its fixed bytes went to another model, but a worker without a lease costs none.
TEST_F(RouterPins, AModelWhoseFixedBytesWereTakenStaysWarm) {
  Begin(105 * kMiB);
  for (const char* name : {"a", "b"}) {
    auto client = h_->Generate(name, 3);
    ASSERT_TRUE(Done(client)) << name;
  }
  Settle();
  EXPECT_EQ(h_->StatusOf("a").state(), v1::WARM);
  EXPECT_EQ(h_->StatusOf("a").master_bytes(), 80 * kMiB);
  EXPECT_EQ(h_->router->GetStatus().devices(0).leases_size(), 1);
}

}  // namespace
}  // namespace switchyard::supervisor
