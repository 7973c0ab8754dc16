#include "supervisor/eviction.h"

#include <gtest/gtest.h>

#include <random>

#include "absl/strings/str_cat.h"

namespace switchyard::supervisor {
namespace {

constexpr Nanos kNow = 100;

// Fixed 10, 10 chunks of 20, KV smallest 30, useful 90.
Tenant Resident(const std::string& name, Nanos last_use, uint64_t kv = 30) {
  Tenant tenant;
  tenant.model = name;
  tenant.needs = Needs{10, 200, 20, 30, 90, 10};
  tenant.lease = Bytes{10, 200, kv};
  tenant.last_use = last_use;
  return tenant;
}

TEST(Eviction, SpareKvFirstOfTheLeastRecentlyUsed) {
  const Eviction e = ChooseVictims({Resident("new", 9, 90), Resident("old", 1, 90)}, 35, kNow);
  ASSERT_TRUE(e.enough);
  ASSERT_EQ(e.shrinks.size(), 1u);
  EXPECT_EQ(e.shrinks[0].model, "old");
  EXPECT_EQ(e.shrinks[0].target, (Bytes{10, 200, 50}));  // whole granules
  EXPECT_EQ(e.freed, 40u);
}

TEST(Eviction, SpareKvOfAllBeforeAnyWeights) {
  const Eviction e = ChooseVictims({Resident("new", 9, 90), Resident("old", 1, 90)}, 100, kNow);
  ASSERT_TRUE(e.enough);
  EXPECT_EQ(e.shrinks.size(), 2u);
  for (const Shrink& s : e.shrinks) EXPECT_EQ(s.target.weights, 200u) << s.model;
}

TEST(Eviction, BlocksOfAnActiveModelThatHoldNothingBeforeAnyWeights) {
  Tenant active = Resident("active", 9, 90);
  active.active = true;
  active.kv_used = 45;  // in five granules
  const Eviction some = ChooseVictims({active, Resident("idle", 1)}, 40, kNow);
  ASSERT_EQ(some.shrinks.size(), 1u);
  EXPECT_EQ(some.shrinks[0].model, "active");
  EXPECT_EQ(some.shrinks[0].target, (Bytes{10, 200, 50}));
  EXPECT_FALSE(some.shrinks[0].drain);
  // Blocks that hold something go after the weights of an idle model.
  const Eviction more = ChooseVictims({active, Resident("idle", 1)}, 60, kNow);
  ASSERT_EQ(more.shrinks.size(), 2u);
  EXPECT_EQ(more.shrinks[0].target, (Bytes{10, 200, 50}));
  EXPECT_EQ(more.shrinks[1].target, (Bytes{10, 200, 0}));
}

TEST(Eviction, IdleModelsBeforeActiveOnesWhateverTheirAge) {
  Tenant active = Resident("a", 1);  // a long answer: not used lately, but now
  active.active = true;
  const Eviction e = ChooseVictims({active, Resident("b", 9)}, 100, kNow);
  ASSERT_EQ(e.shrinks.size(), 1u);
  EXPECT_EQ(e.shrinks[0].model, "b");
}

TEST(Eviction, WhatOutlastedADrainStays) {
  Tenant active = Resident("a", 1, 90);
  active.active = true;
  EXPECT_EQ(ChooseVictims({active}, 300, kNow).shrinks[0].end_worker, true);
  active.worker_stays = true;
  EXPECT_FALSE(ChooseVictims({active}, 300, kNow).enough);
  EXPECT_EQ(ChooseVictims({active}, 290, kNow).shrinks[0].target, (Bytes{10, 0, 0}));
  active.stays = true;
  EXPECT_FALSE(ChooseVictims({active}, 290, kNow).enough);
  EXPECT_EQ(ChooseVictims({active}, 60, kNow).shrinks[0].target, (Bytes{10, 200, 30}));
}

TEST(Eviction, WhatCostsTenTimesAsMuchCountsAsUsedTenTimesAsRecently) {
  Tenant cold = Resident("cold", kNow - 90);  // has no master: it would be read from disk
  cold.cost = 10;
  Tenant warm = Resident("warm", kNow - 10);
  EXPECT_EQ(ChooseVictims({cold, warm}, 50, kNow).shrinks[0].model, "warm");
  cold.last_use = kNow - 110;
  EXPECT_EQ(ChooseVictims({cold, warm}, 50, kNow).shrinks[0].model, "cold");
}

TEST(Eviction, MastersOfTheLeastUseAndCostAreDropped) {
  const SpareMaster old{"old", 30, 10, 1, false};
  const SpareMaster used{"used", 30, 90, 1, false};
  const SpareMaster dear{"dear", 30, 10, 20, false};
  const SpareMaster pinned{"pinned", 30, 0, 1, true};
  using Names = std::vector<std::string>;
  EXPECT_EQ(ChooseMasters({used, old, dear, pinned}, 0, kNow), Names{});
  EXPECT_EQ(ChooseMasters({used, old, dear, pinned}, 30, kNow), Names{"old"});
  EXPECT_EQ(ChooseMasters({used, old, dear, pinned}, 31, kNow), (Names{"used", "old"}));
  EXPECT_EQ(ChooseMasters({used, old, dear, pinned}, 90, kNow).size(), 3u);
  EXPECT_EQ(ChooseMasters({used, old, dear, pinned}, 1000, kNow).size(), 4u);
}

TEST(Eviction, NoMasterIsDroppedInVain) {
  const SpareMaster small{"small", 10, 10, 1, false};
  const SpareMaster large{"large", 100, 20, 1, false};
  EXPECT_EQ(ChooseMasters({small, large}, 50, kNow), std::vector<std::string>{"large"});
}

TEST(Eviction, TakesOnlyAsManyChunksAsNeededFromTheEnd) {
  const Eviction e = ChooseVictims({Resident("a", 1), Resident("b", 2)}, 75, kNow);
  ASSERT_TRUE(e.enough);
  ASSERT_EQ(e.shrinks.size(), 1u);
  // The pool gives 30, three chunks the other 45.
  EXPECT_EQ(e.shrinks[0].model, "a");
  EXPECT_EQ(e.shrinks[0].target, (Bytes{10, 140, 0}));
  EXPECT_EQ(e.freed, 90u);
}

TEST(Eviction, AModelBelowFullGivesItsPoolBeforeMoreChunks) {
  Tenant part = Resident("part", 1, 30);
  part.lease.weights = 100;
  const Eviction e = ChooseVictims({part}, 20, kNow);
  ASSERT_TRUE(e.enough);
  EXPECT_EQ(e.shrinks[0].target, (Bytes{10, 100, 0}));
}

TEST(Eviction, APinnedModelGivesItsSpareKvLastAndNothingElse) {
  Tenant pinned = Resident("pinned", 0, 90);
  pinned.pinned = true;
  const Eviction some = ChooseVictims({pinned, Resident("a", 5, 50)}, 20, kNow);
  EXPECT_EQ(some.shrinks[0].model, "a");
  const Eviction all = ChooseVictims({pinned}, 500, kNow);
  EXPECT_FALSE(all.enough);
  EXPECT_EQ(all.freed, 60u);
  EXPECT_EQ(all.shrinks[0].target, (Bytes{10, 200, 30}));
}

TEST(Eviction, AnActiveVictimIsDrainedIfItDoesNotStayWhole) {
  Tenant active = Resident("a", 1, 90);
  active.active = true;
  const Eviction spare = ChooseVictims({active}, 60, kNow);
  EXPECT_FALSE(spare.shrinks[0].drain);
  EXPECT_EQ(spare.shrinks[0].target.kv, 30u);
  const Eviction more = ChooseVictims({active}, 61, kNow);
  EXPECT_TRUE(more.shrinks[0].drain);
}

TEST(Eviction, TabooIsNotTouched) {
  Tenant taboo = Resident("a", 1);
  taboo.taboo = true;
  EXPECT_FALSE(ChooseVictims({taboo}, 1, kNow).enough);
  EXPECT_EQ(Reclaimable(taboo), 240u);
}

TEST(Eviction, FixedBytesAreTheLastResort) {
  const Eviction e = ChooseVictims({Resident("a", 1), Resident("b", 2)}, 465, kNow);
  ASSERT_TRUE(e.enough);
  ASSERT_EQ(e.shrinks.size(), 2u);
  EXPECT_TRUE(e.shrinks[0].end_worker);
  EXPECT_FALSE(e.shrinks[1].end_worker);
  // What is paused finishes first, for which it needs all of the model.
  Tenant paused = Resident("a", 1);
  paused.paused = true;
  EXPECT_TRUE(ChooseVictims({paused}, 240, kNow).enough);
  paused.lease.weights -= paused.needs.chunk;
  const uint64_t all = paused.lease.total();
  EXPECT_FALSE(ChooseVictims({paused}, all, kNow).enough);
  EXPECT_TRUE(ChooseVictims({paused}, all - paused.lease.fixed, kNow).enough);
}

TEST(Eviction, AnUnusedDeviceGoesBeforeAnythingOfUseIfItIsEnough) {
  Tenant unused = Resident("z", 9);
  unused.lease = {unused.needs.fixed, 0, 0};
  unused.unused = true;
  ASSERT_GT(unused.needs.fixed, 0u);
  Tenant full = Resident("a", 1);
  full.lease.kv = full.needs.kv_smallest;  // nothing to spare
  const Eviction e = ChooseVictims({full, unused}, unused.needs.fixed, kNow);
  ASSERT_EQ(e.shrinks.size(), 1u);
  EXPECT_EQ(e.shrinks[0].model, "z");
  EXPECT_TRUE(e.shrinks[0].end_worker);
  const Eviction more = ChooseVictims({full, unused}, unused.needs.fixed + 1, kNow);
  ASSERT_EQ(more.shrinks.size(), 1u);
  EXPECT_EQ(more.shrinks[0].model, "a");
  unused.taboo = true;
  EXPECT_EQ(ChooseVictims({full, unused}, 1, kNow).shrinks[0].model, "a");
}

// Whatever the tenants: never more from anyone than it has, weights in whole chunks, the sum right,
// enough if it can be, and nobody in vain.
TEST(Eviction, HoldsForRandomTenants) {
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    std::vector<Tenant> tenants;
    for (uint64_t i = random() % 6; i > 0; --i) {
      Tenant t = Resident(absl::StrCat("m", i), static_cast<Nanos>(random() % 5), random() % 120);
      t.lease.weights = random() % 11 * 20;
      t.pinned = random() % 4 == 0;
      t.active = random() % 3 == 0;
      t.paused = random() % 5 == 0;
      t.taboo = random() % 5 == 0;
      t.unused = random() % 4 == 0;
      if (t.unused) t.lease = {t.lease.fixed, 0, 0};
      t.paused &= !t.unused;
      tenants.push_back(t);
    }
    const uint64_t needed = random() % 800;
    const Eviction e = ChooseVictims(tenants, needed, kNow);
    uint64_t freed = 0;
    for (const Shrink& s : e.shrinks) {
      auto t = std::find_if(tenants.begin(), tenants.end(),
                            [&](const Tenant& x) { return x.model == s.model; });
      ASSERT_NE(t, tenants.end());
      EXPECT_FALSE(t->taboo);
      EXPECT_TRUE(t->lease.Covers(s.target));
      EXPECT_EQ(s.target.weights % 20, 0u);
      EXPECT_NE(t->lease, s.target);
      EXPECT_TRUE(!t->pinned || t->needs.Whole(s.target));
      EXPECT_TRUE(!s.end_worker || s.target.total() == 0);
      freed += t->lease.total() - s.target.total();
    }
    EXPECT_EQ(freed, e.freed);
    EXPECT_EQ(e.enough, freed >= needed);
    EXPECT_TRUE(needed > 0 || e.shrinks.empty());
    uint64_t most = 0;
    for (const Tenant& tenant : tenants) most += Reclaimable(tenant);
    EXPECT_LE(freed, most);
  }
}

}  // namespace
}  // namespace switchyard::supervisor
