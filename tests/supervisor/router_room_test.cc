// What is done and told when a device has no room: strangers and pinned models have it.

#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

class RouterRoom : public RouterFixture {
 protected:
  bool InferenceServes() {
    EXPECT_EQ(h_->world.health[""], h_->world.health["switchyard.v1.Inference"]);
    return h_->world.health[""];
  }
};

TEST_F(RouterRoom, WhoStrangersLeaveNoRoomDoesNotServeAndSaysWhy) {
  auto catalog = Catalog();
  catalog.push_back(FakeModel("small", 2 * kMiB, kMiB, 4, kMiB, kMiB));
  Begin(150 * kMiB, 1024 * kMiB, catalog);
  Settle();
  EXPECT_TRUE(Serves("a"));
  h_->Foreign("cpu", 120 * kMiB);
  h_->RunFor(3 * kSecond);
  EXPECT_FALSE(Serves("a"));
  EXPECT_EQ(h_->StatusOf("a").error(),
            "a needs 100.0 MiB (fixed 10.0 MiB + weights 80.0 MiB + smallest KV pool 10.0 MiB), "
            "but cpu has 150.0 MiB: 0 B reserve, 120.0 MiB used by other programs");
  EXPECT_EQ(h_->StatusOf("a").state(), v1::WARM);
  EXPECT_TRUE(Serves("small"));
  EXPECT_EQ(h_->StatusOf("small").error(), "");
  EXPECT_TRUE(InferenceServes());
  h_->Foreign("cpu", 145 * kMiB);
  h_->RunFor(3 * kSecond);
  EXPECT_FALSE(InferenceServes());
  h_->Foreign("cpu", 50 * kMiB);
  h_->RunFor(kSecond);
  EXPECT_TRUE(Serves("a"));
  EXPECT_EQ(h_->StatusOf("a").error(), "");
  EXPECT_EQ(h_->StatusOf("a").last_failure(), "");
}

// A program that starts or ends may take much for a moment.
TEST_F(RouterRoom, AMomentWithoutRoomIsNotTold) {
  Begin(150 * kMiB);
  Settle();
  for (int round = 0; round < 3; ++round) {
    h_->Foreign("cpu", 120 * kMiB);
    h_->RunFor(1900 * kMillisecond);
    EXPECT_TRUE(Serves("a"));
    EXPECT_EQ(h_->StatusOf("a").error(), "");
    h_->Foreign("cpu", 20 * kMiB);
    h_->RunFor(kSecond / 2);
  }
}

// Strangers cost a resident model its spare KV, or nothing if it is pinned: its answers come.
TEST_F(RouterRoom, WhoIsResidentServesWhateverStrangersHave) {
  Begin(150 * kMiB);
  ASSERT_TRUE(Done(h_->Switch("a")));
  ASSERT_EQ(h_->router->Pin("a", true), absl::OkStatus());
  h_->Foreign("cpu", 80 * kMiB);
  h_->RunFor(5 * kSecond);
  EXPECT_TRUE(Serves("a"));
  EXPECT_EQ(h_->StatusOf("a").error(), "");
  auto client = h_->Generate("a", 2);
  ASSERT_TRUE(Done(client));
  EXPECT_TRUE(client->status.ok()) << client->status;
}

TEST_F(RouterRoom, WhoPinsLeaveNoRoomDoesNotServeUntilTheyDo) {
  Begin(150 * kMiB);
  ASSERT_TRUE(Done(h_->Switch("a")));
  EXPECT_TRUE(Serves("b"));
  ASSERT_EQ(h_->router->Pin("a", true), absl::OkStatus());
  h_->RunFor(kSecond);
  EXPECT_TRUE(Serves("a"));
  EXPECT_FALSE(Serves("b"));
  EXPECT_NE(h_->StatusOf("b").error().find("kept by a (pinned)"), std::string::npos)
      << h_->StatusOf("b").error();
  ASSERT_EQ(h_->router->Pin("a", false), absl::OkStatus());
  EXPECT_TRUE(Serves("b"));
  EXPECT_EQ(h_->StatusOf("b").error(), "");
}

TEST_F(RouterRoom, StrangersMemoryShrinksLeases) {
  Begin(300 * kMiB);
  ASSERT_TRUE(Done(h_->Switch("a")));
  h_->router->OnForeignBytes("cpu", 200 * kMiB);
  Settle();
  EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);  // spare KV was enough
  EXPECT_EQ(h_->StatusOf("a").kv_bytes(), 10 * kMiB);
  h_->router->OnForeignBytes("cpu", 250 * kMiB);
  Settle();
  EXPECT_NE(h_->StatusOf("a").state(), v1::RESIDENT);
  const OurBytes ours = h_->router->OursOn("cpu");
  EXPECT_TRUE(ours.settled);
  EXPECT_EQ(ours.held, h_->router->GetStatus().devices(0).leased_bytes());
  auto client = h_->Generate("a", 1);
  ASSERT_TRUE(Done(client));
  EXPECT_EQ(client->status.code(), absl::StatusCode::kResourceExhausted);
  h_->router->OnForeignBytes("cpu", 0);
}

TEST_F(RouterRoom, StrangersAreSeenDuringADrain) {
  const Drain drain = DrainLong();
  auto foreign = [this] { return h_->router->GetStatus().devices(0).foreign_bytes(); };
  const OurBytes ours = h_->router->OursOn("cpu");
  EXPECT_FALSE(ours.settled);
  EXPECT_GE(ours.most, ours.held);
  EXPECT_LT(ours.least, ours.held) << "what is asked for may have been given back already";
  h_->ForeignBetween("cpu", 20 * kMiB, 60 * kMiB);
  EXPECT_EQ(foreign(), 20 * kMiB);
  h_->ForeignBetween("cpu", 10 * kMiB, 60 * kMiB);
  EXPECT_EQ(foreign(), 20 * kMiB) << "they may have as much still";
  h_->ForeignBetween("cpu", 0, 10 * kMiB);
  EXPECT_EQ(foreign(), 10 * kMiB) << "they are gone for the most part";
  h_->Foreign("cpu", 5 * kMiB);
  EXPECT_EQ(foreign(), 5 * kMiB);
}

TEST_F(RouterRoom, StrangersWhoAreGoneDuringADrainRefuseNobody) {
  const Drain drain = DrainLong();
  h_->ForeignBetween("cpu", 120 * kMiB, 140 * kMiB);
  h_->RunFor(kSecond);
  h_->ForeignBetween("cpu", 0, 20 * kMiB);
  h_->RunFor(5 * kSecond);
  EXPECT_EQ(drain.op->finishes, 0) << drain.op->status;
  EXPECT_TRUE(Serves("b"));
}

TEST_F(RouterRoom, StrangersDoNotWaitForASwapFromDisk) {
  rules_.bytes_per_second = static_cast<double>(8 * kMiB);  // the image takes ten seconds
  Begin(330 * kMiB);
  ASSERT_TRUE(Done(h_->Switch("a")));
  auto op = h_->Switch("b");
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("b").state() == v1::LOADING; }));
  h_->ForeignBetween("cpu", 130 * kMiB, 330 * kMiB);
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() != v1::RESIDENT; }));
  EXPECT_EQ(h_->StatusOf("b").state(), v1::LOADING) << "what comes in is not disturbed";
  h_->Foreign("cpu", 130 * kMiB);
  EXPECT_TRUE(Done(op));
  EXPECT_EQ(h_->StatusOf("b").state(), v1::RESIDENT);
  h_->Foreign("cpu", 0);
}

TEST_F(RouterRoom, StrangersWhoGoAgainRefuseNobody) {
  Begin(150 * kMiB);
  Settle();
  h_->Foreign("cpu", 120 * kMiB);
  auto client = h_->Generate("a", 1);
  h_->RunFor(1900 * kMillisecond);
  EXPECT_EQ(client->finishes, 0) << client->status;
  h_->Foreign("cpu", 20 * kMiB);
  ASSERT_TRUE(Done(client));
  EXPECT_TRUE(client->status.ok()) << client->status;
}

TEST_F(RouterRoom, StrangersWhoStayRefuseSoon) {
  Begin(150 * kMiB);
  Settle();
  h_->Foreign("cpu", 120 * kMiB);
  auto client = h_->Generate("a", 1);
  h_->RunFor(kSecond);
  h_->Foreign("cpu", 130 * kMiB);  // more or less: there was no room all the time
  h_->RunFor(kSecond);
  EXPECT_EQ(client->status.code(), absl::StatusCode::kResourceExhausted) << client->status;
  auto next = h_->Generate("b", 1);
  ASSERT_TRUE(h_->RunUntil([&] { return next->finishes > 0; }, kSecond));
  EXPECT_EQ(next->status.code(), absl::StatusCode::kResourceExhausted) << next->status;
  h_->Foreign("cpu", 0);
}

TEST_F(RouterRoom, ASmallerCapacityShrinksLeasesAndALargerOneServesAgain) {
  Begin(300 * kMiB);
  ASSERT_TRUE(Done(h_->Switch("a")));
  ASSERT_EQ(h_->Reload(Catalog(), "cpu", 50 * kMiB), absl::OkStatus());
  Settle();
  EXPECT_NE(h_->StatusOf("a").state(), v1::RESIDENT);
  EXPECT_LE(h_->router->GetStatus().devices(0).leased_bytes(), 50 * kMiB);
  EXPECT_EQ(h_->Generate("a", 1)->status.code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_EQ(h_->Reload(Catalog(), "cpu", 300 * kMiB), absl::OkStatus());
  auto client = h_->Generate("a", 1);
  ASSERT_TRUE(Done(client));
  EXPECT_TRUE(client->status.ok()) << client->status;
}

TEST_F(RouterRoom, WhoRunsOnADeviceThatBecomesTooSmallIsToldSo) {
  Begin(300 * kMiB);
  auto client = h_->Generate("a", 1'000'000);
  ASSERT_TRUE(h_->RunUntil([&] { return client->tokens > 0; }));
  ASSERT_EQ(h_->Reload(Catalog(), "cpu", 50 * kMiB), absl::OkStatus());
  ASSERT_TRUE(Done(client));
  EXPECT_EQ(client->status,
            absl::AbortedError(
                "a cannot be served any more, since a reload: a needs 100.0 MiB (fixed 10.0 MiB + "
                "weights 80.0 MiB + smallest KV pool 10.0 MiB), but cpu has 50.0 MiB, of which 0 B "
                "are kept in reserve: 50.0 MiB can be leased. Use a larger device"));
}

TEST_F(RouterRoom, FixedBytesAreReclaimedWhenNothingElseIsLeft) {
  Begin(105 * kMiB);  // any model fits, but not beside another's fixed bytes
  for (int round = 0; round < 2; ++round) {
    for (const char* name : {"a", "b", "c"}) {
      auto client = h_->Generate(name, 3);
      ASSERT_TRUE(Done(client)) << name;
      EXPECT_TRUE(client->status.ok()) << client->status;
    }
  }
}

TEST_F(RouterRoom, AGrowThatFailsFailsTheSwap) {
  Begin(300 * kMiB);
  Settle();
  h_->world.rules.faults.grow_fails = 1;
  auto client = h_->Generate("a", 1);
  ASSERT_TRUE(Done(client));
  EXPECT_EQ(client->status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_NE(client->status.message().find("out of memory"), std::string::npos);
  h_->world.rules.faults.grow_fails = 0;
  auto second = h_->Generate("a", 1);
  ASSERT_TRUE(Done(second));
  EXPECT_TRUE(second->status.ok()) << second->status;
}

// A pin is a promise, also to those who make the device smaller.
TEST_F(RouterRoom, ADeviceIsNotMadeTooSmallForItsPins) {
  Begin(300 * kMiB);
  Settle();
  ASSERT_EQ(h_->router->Pin("a", true), absl::OkStatus());
  ASSERT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::RESIDENT; }));
  EXPECT_EQ(h_->Reload(Catalog(), "cpu", 90 * kMiB),
            absl::FailedPreconditionError(
                "cpu cannot be made smaller than what is pinned on it needs: a 100.0 MiB (fixed "
                "10.0 MiB + weights 80.0 MiB + smallest KV pool 10.0 MiB), but cpu has 90.0 MiB, "
                "of which 0 B are kept in reserve: 90.0 MiB can be leased. Unpin it first"));
  ASSERT_EQ(h_->router->Pin("b", true), absl::OkStatus());
  const absl::Status status = h_->Reload(Catalog(), "cpu", 190 * kMiB);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(status.message().find("together 200.0 MiB"), absl::string_view::npos) << status;
  EXPECT_EQ(h_->router->GetStatus().devices(0).capacity_bytes(), 300 * kMiB);
  Settle();
  ASSERT_EQ(h_->Reload(Catalog(), "cpu", 200 * kMiB), absl::OkStatus());
  Settle();
  for (const char* name : {"a", "b"}) {
    EXPECT_EQ(h_->StatusOf(name).state(), v1::RESIDENT) << name;
    EXPECT_EQ(h_->StatusOf(name).restarts(), 0u) << name;
  }
}

TEST_F(RouterRoom, AReloadThatUnpinsMayMakeTheDeviceSmaller) {
  auto catalog = Catalog();
  catalog[0].model.set_pinned(true);
  Begin(300 * kMiB, 1024 * kMiB, catalog);
  Settle();
  EXPECT_EQ(h_->Reload(catalog, "cpu", 90 * kMiB).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(h_->Reload(Catalog(), "cpu", 90 * kMiB), absl::OkStatus());
  Settle();
  EXPECT_EQ(h_->StatusOf("a").state(), v1::FAILED);
}

// The checkpoint's own worker knows better than the plan, and no other one will: it is not killed.
TEST_F(RouterRoom, AWorkerThatNeedsMoreThanTheDeviceHasWaitsForALargerOne) {
  rules_.more_fixed = 5 * kMiB;
  auto catalog = Catalog();
  catalog[0].model.set_pinned(true);
  Begin(102 * kMiB, 1024 * kMiB, catalog);
  auto early = h_->Generate("a", 1);
  ASSERT_TRUE(Done(early));
  EXPECT_EQ(early->status.code(), absl::StatusCode::kFailedPrecondition) << early->status;
  h_->RunFor(60 * kSecond);
  EXPECT_EQ(h_->world.launches, 3u);
  EXPECT_EQ(h_->StatusOf("a").restarts(), 0u);
  EXPECT_EQ(h_->StatusOf("a").state(), v1::FAILED);
  EXPECT_EQ(h_->StatusOf("a").error().find("a needs 105.0 MiB (fixed 15.0 MiB"), 0u)
      << h_->StatusOf("a").error();
  EXPECT_FALSE(Serves("a"));
  EXPECT_EQ(h_->Generate("a", 1)->status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(h_->Switch("a")->status.code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_EQ(h_->Reload(catalog, "cpu", 110 * kMiB), absl::OkStatus());
  EXPECT_TRUE(h_->RunUntil([&] { return h_->StatusOf("a").state() == v1::RESIDENT; }, 5 * kSecond));
  EXPECT_EQ(h_->world.launches, 3u);
}

}  // namespace
}  // namespace switchyard::supervisor
