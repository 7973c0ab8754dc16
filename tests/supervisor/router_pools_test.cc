// KV pools of resident models: what they get, and what becomes of what they could not have.

#include "tests/supervisor/router_fixture.h"

namespace switchyard::supervisor {
namespace {

class RouterPools : public RouterFixture {
 protected:
  // `a` is resident with its useful pool.
  void BeginWithA(uint64_t capacity) {
    Begin(capacity);
    Settle();
    ASSERT_TRUE(Done(h_->Switch("a")));
    ASSERT_EQ(Pool(), 40 * kMiB);
  }
  uint64_t Pool() const { return h_->StatusOf("a").kv_bytes(); }
  uint64_t Charged() const { return h_->router->Ledger("cpu")->Get("a").charge.kv; }
  // More of them than run at once.
  void AskALot() {
    for (int i = 0; i < 6; ++i) busy_.push_back(h_->Generate("a", 1'000'000));
  }
  void TearDown() override {
    for (const auto& client : busy_) h_->Cancel(client);
    RouterFixture::TearDown();
  }

  std::vector<std::shared_ptr<ClientView>> busy_;
};

TEST_F(RouterPools, OneThatIsSmallerThanGrantedIsChargedAsItIs) {
  BeginWithA(300 * kMiB);
  h_->world.WorkerOf("a")->LoseKv(15 * kMiB);
  h_->RunFor(kSecond);
  EXPECT_EQ(Charged(), 15 * kMiB);
  EXPECT_EQ(h_->StatusOf("a").state(), v1::RESIDENT);
  EXPECT_EQ(h_->StatusOf("a").error(),
            "a has 15.0 MiB of KV, not the 40.0 MiB that it was granted on cpu: out of memory");
  ExpectServes("a");
  EXPECT_EQ(h_->StatusOf("a").error(), "");
}

TEST_F(RouterPools, OneThatIsSmallerThanGrantedGrowsAgain) {
  BeginWithA(300 * kMiB);
  h_->world.WorkerOf("a")->LoseKv(15 * kMiB);
  AskALot();
  h_->RunFor(3 * kSecond);
  EXPECT_EQ(Pool(), 40 * kMiB);
}

TEST_F(RouterPools, OneThatCannotGrowIsTriedLessAndLessOften) {
  BeginWithA(300 * kMiB);
  h_->world.WorkerOf("a")->LoseKv(15 * kMiB);
  h_->world.rules.faults.grow_fails = 1;
  const uint64_t before = h_->world.grows;
  AskALot();
  h_->RunFor(60 * kSecond);
  EXPECT_GT(h_->world.grows - before, 3u);
  EXPECT_LT(h_->world.grows - before, 10u);
  h_->world.rules.faults.grow_fails = 0;
  h_->RunFor(61 * kSecond);
  EXPECT_EQ(Pool(), 40 * kMiB);
}

TEST_F(RouterPools, OneThatDoesNotKeepWhatItGetsIsTriedLessAndLessOften) {
  BeginWithA(300 * kMiB);
  h_->world.rules.faults.loses_kv = 1;
  const uint64_t before = h_->world.grows;
  AskALot();
  h_->RunFor(60 * kSecond);
  EXPECT_GT(h_->world.grows - before, 1u);
  EXPECT_LT(h_->world.grows - before, 10u);
}

// What a switch left of its victim would keep the newcomer's pool as small as can be.
TEST_F(RouterPools, WhatIsLeftOfAnIdleModelGoesForThem) {
  Begin(150 * kMiB);
  Settle();
  ASSERT_TRUE(Done(h_->Switch("b")));
  ASSERT_TRUE(Done(h_->Switch("a")));
  const uint64_t pool = Pool(), left = h_->StatusOf("b").resident_bytes();
  ASSERT_LT(pool, 40 * kMiB);
  ASSERT_GT(left, 0u);
  h_->RunFor(60 * kSecond);
  EXPECT_EQ(h_->StatusOf("b").resident_bytes(), left) << "nobody waits for KV";
  AskALot();
  h_->RunFor(5 * kSecond);
  EXPECT_EQ(Pool(), 40 * kMiB);
  EXPECT_LT(h_->StatusOf("b").resident_bytes(), left);
  EXPECT_EQ(h_->StatusOf("b").restarts(), 0u);
}

TEST_F(RouterPools, OnAGpuWhatIsOpenForNobodyGoesForThem) {
  device_ = "GPU-0";
  Begin(130 * kMiB);
  Settle();
  ASSERT_TRUE(Done(h_->Switch("a")));
  ASSERT_EQ(Pool(), 20 * kMiB) << "b and c have their fixed bytes";
  AskALot();
  h_->RunFor(5 * kSecond);
  EXPECT_EQ(Pool(), 40 * kMiB);
  const uint64_t launches = h_->world.launches;
  h_->RunFor(60 * kSecond);
  EXPECT_EQ(h_->world.launches, launches);
  EXPECT_EQ(h_->StatusOf("b").state(), v1::WARM);
}

}  // namespace
}  // namespace switchyard::supervisor
