// Masters that outlive a supervisor: what it keeps, drops and adopts.

#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

constexpr uint64_t kImage = 80 * kMiB;

class RouterMasters : public RouterFixture {
 protected:
  static std::vector<ModelEntry> Keyed() {
    std::vector<ModelEntry> catalog = Catalog();
    for (ModelEntry& entry : catalog) entry.plan.set_image_key("key-" + entry.model.name());
    return catalog;
  }
  // A supervisor that finds the master of `a`.
  void BeginWithA(uint64_t host = 1024 * kMiB) {
    options_.prefetch_at_start = false;
    Make(150 * kMiB, host, Keyed());
    h_->router->Adopt("a", h_->world.LeftOver(kImage));
    h_->router->Start();
  }
  v1::ModelState State(const std::string& model) { return h_->StatusOf(model).state(); }
};

TEST_F(RouterMasters, AnAdoptedOneIsWarmAndLoadsWithoutBeingFilled) {
  BeginWithA();
  EXPECT_EQ(h_->router->HostAccount().used(), kImage);
  Settle();
  EXPECT_EQ(State("a"), v1::WARM);
  EXPECT_EQ(State("b"), v1::COLD);
  const auto op = h_->Switch("a");
  ASSERT_TRUE(Done(op));
  EXPECT_EQ(op->events.back().bytes_total(), kImage) << "copied, and not read before";
  EXPECT_EQ(h_->world.fills, 0u);
}

TEST_F(RouterMasters, ARequestThatComesBeforeItsWorkerWaits) {
  BeginWithA();
  const auto client = h_->Generate("a", 3);
  ASSERT_TRUE(Done(client));
  EXPECT_EQ(client->status, absl::OkStatus());
  EXPECT_EQ(h_->world.fills, 0u);
}

TEST_F(RouterMasters, AnAdoptedOneMakesRoomAsAnyOther) {
  BeginWithA(kImage + 8 * kMiB);
  ASSERT_TRUE(Done(h_->Switch("b")));
  EXPECT_EQ(State("a"), v1::COLD);
  EXPECT_EQ(h_->world.masters.size(), 1u);
}

// The harness holds what is not free yet against the account.
TEST_F(RouterMasters, NothingTakesTheRoomOfOneThatIsNotFreeYet) {
  rules_.frees = 5 * kSecond;
  BeginWithA(kImage + 8 * kMiB);
  const Nanos asked = h_->world.timers.Now();
  ASSERT_TRUE(Done(h_->Switch("b")));
  EXPECT_GT(h_->world.timers.Now() - asked, rules_.frees);
  EXPECT_EQ(h_->router->HostAccount().closing(), 0u);
}

TEST_F(RouterMasters, TheOthersAreFilledBesideIt) {
  Make(150 * kMiB, 2 * kImage, Keyed());
  h_->router->Adopt("b", h_->world.LeftOver(kImage));
  h_->router->Start();
  Settle();
  EXPECT_EQ(State("a"), v1::WARM);
  EXPECT_EQ(State("b"), v1::WARM);
  EXPECT_EQ(State("c"), v1::COLD);
  EXPECT_EQ(h_->world.fills, 1u);
}

TEST_F(RouterMasters, OnlyWhatIsCompleteIsKept) {
  Begin(150 * kMiB, 1024 * kMiB, Keyed());
  ASSERT_TRUE(h_->RunUntil([&] { return h_->world.fills == 1; }));
  EXPECT_TRUE(h_->world.kept.empty());
  Settle();
  EXPECT_EQ(h_->world.kept.size(), 3u);
  h_->world.WorkerOf("a")->Die("a loss");
  Settle();
  EXPECT_EQ(h_->world.kept.size(), 3u);
  EXPECT_EQ(h_->world.fills, 3u);
}

TEST_F(RouterMasters, WhatIsDroppedIsNotKeptAndWhatIsThereAtTheEndIs) {
  Begin(150 * kMiB, 1024 * kMiB, Keyed());
  Settle();
  bool unloaded = false;
  h_->router->Unload("b", [&](const absl::StatusOr<v1::UnloadReply>&) { unloaded = true; });
  ASSERT_TRUE(h_->RunUntil([&] { return unloaded; }));
  std::set<std::string> kept;
  for (const auto& [id, key] : h_->world.kept) kept.insert(key);
  EXPECT_EQ(kept, (std::set<std::string>{"key-a", "key-c"}));
  h_->DrainAndCheck(kSecond);
  EXPECT_EQ(h_->world.kept.size(), 2u);
  EXPECT_EQ(h_->violation(), "");
  h_.reset();
}

TEST_F(RouterMasters, WhatIsStreamedIsNotKept) {
  Begin(150 * kMiB, 64 * kMiB, Keyed());
  ASSERT_TRUE(Done(h_->Switch("a")));
  EXPECT_TRUE(h_->world.kept.empty());
}

// The key is that of the worker that filled it: the catalog's may be of a time before.
TEST_F(RouterMasters, ItIsKeptAsWhatItWasFilledFrom) {
  options_.prefetch_at_start = false;
  Make(150 * kMiB, 1024 * kMiB, Keyed());
  h_->world.image_keys["a"] = "key-of-now";
  h_->router->Start();
  ASSERT_TRUE(Done(h_->Switch("a")));
  ASSERT_EQ(h_->world.kept.size(), 1u);
  EXPECT_EQ(h_->world.kept.begin()->second, "key-of-now");
}

TEST_F(RouterMasters, AWorkerThatFindsAnotherCheckpointFillsAnew) {
  BeginWithA();
  h_->world.image_keys["a"] = "key-of-now";
  Settle();
  EXPECT_EQ(State("a"), v1::COLD);
  EXPECT_EQ(h_->router->HostAccount().used(), 0u);
  ASSERT_TRUE(Done(h_->Switch("a")));
  EXPECT_EQ(h_->world.fills, 1u);
  EXPECT_EQ(h_->world.kept.begin()->second, "key-of-now");
  // Nor does a later one take what is there of a checkpoint that has changed since.
  h_->world.image_keys["a"] = "key-of-later";
  h_->world.WorkerOf("a")->Die("a loss");
  Settle();
  ASSERT_TRUE(Done(h_->Switch("a")));
  EXPECT_EQ(h_->world.fills, 2u);
}

// Where they are registered, before any switch; a switch takes what it needs from them.
TEST_F(RouterMasters, OnAGpuWorkersThatHaveOneOpenIt) {
  device_ = "GPU-0";
  Begin(120 * kMiB);
  Settle();
  EXPECT_EQ(h_->world.HeldOn(device_), 30 * kMiB) << "fixed bytes of three";
  for (const char* name : {"a", "b", "c"}) EXPECT_EQ(State(name), v1::WARM);
  const uint64_t launches = h_->world.launches;
  ASSERT_TRUE(Done(h_->Switch("a")));
  EXPECT_EQ(h_->world.HeldOn(device_), 120 * kMiB);
  EXPECT_EQ(h_->world.launches, launches);
}

TEST_F(RouterMasters, OnAGpuTheirFixedBytesKeepNobodyOut) {
  device_ = "GPU-0";
  Begin(105 * kMiB);
  Settle();
  ASSERT_TRUE(Done(h_->Switch("a")));
  EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);
  h_->RunFor(60 * kSecond);
  EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);
  ASSERT_TRUE(Done(h_->Switch("b")));
  EXPECT_EQ(h_->StatusOf("b").state(), v1::RESIDENT);
}

TEST_F(RouterMasters, OnAGpuNobodyGivesWayToOneThatIsOpenForNobody) {
  device_ = "GPU-0";
  Begin(205 * kMiB);
  Settle();
  ASSERT_TRUE(Done(h_->Switch("a")));
  ASSERT_TRUE(Done(h_->Switch("b")));
  h_->RunFor(60 * kSecond);
  EXPECT_EQ(State("a"), v1::RESIDENT);
  EXPECT_EQ(State("b"), v1::RESIDENT);
  EXPECT_EQ(State("c"), v1::WARM) << "launched again";
  const uint64_t launches = h_->world.launches;
  h_->RunFor(600 * kSecond);
  EXPECT_EQ(h_->world.launches, launches);
}

TEST_F(RouterMasters, OnAGpuWorkersWithoutOneDoNotOpenIt) {
  device_ = "GPU-0";
  options_.prefetch_at_start = false;
  Begin(300 * kMiB);
  Settle();
  EXPECT_EQ(h_->world.HeldOn(device_), 0u);
}

}  // namespace
}  // namespace switchyard::supervisor
