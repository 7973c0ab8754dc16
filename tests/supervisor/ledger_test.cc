#include "supervisor/ledger.h"

#include <gtest/gtest.h>

namespace switchyard::supervisor {
namespace {

DeviceLedger Ledger() { return DeviceLedger(Device{"cpu", 1000, 100}); }

TEST(DeviceLedger, GrowthCountsWhenGranted) {
  DeviceLedger ledger = Ledger();
  EXPECT_EQ(ledger.free(), 900u);
  ledger.Grant("a", {10, 200, 50});
  EXPECT_EQ(ledger.charged(), 260u);
  EXPECT_EQ(ledger.held(), 0u);
  EXPECT_EQ(ledger.free(), 640u);
}

TEST(DeviceLedger, ShrinkCountsWhenAcknowledged) {
  DeviceLedger ledger = Ledger();
  ledger.Acknowledge("a", ledger.Grant("a", {10, 200, 50}), {10, 200, 50});
  const uint64_t epoch = ledger.Grant("a", {10, 0, 0});
  EXPECT_EQ(ledger.charged(), 260u);
  ledger.Acknowledge("a", epoch, {10, 80, 0});
  EXPECT_EQ(ledger.charged(), 90u);
  ledger.Acknowledge("a", epoch, {10, 0, 0});
  EXPECT_EQ(ledger.charged(), 10u);
}

TEST(DeviceLedger, ChargesTheLargerOfGrantedAndHeldInEveryPart) {
  DeviceLedger ledger = Ledger();
  ledger.Acknowledge("a", ledger.Grant("a", {10, 200, 0}), {10, 200, 0});
  // Weights go, KV comes: both count until the worker has answered.
  const uint64_t epoch = ledger.Grant("a", {10, 0, 150});
  EXPECT_EQ(ledger.charged(), 360u);
  ledger.Acknowledge("a", epoch, {10, 0, 150});
  EXPECT_EQ(ledger.charged(), 160u);
}

TEST(DeviceLedger, AStaleAnswerLowersNothing) {
  DeviceLedger ledger = Ledger();
  const uint64_t grow = ledger.Grant("a", {10, 500, 0});
  const uint64_t shrink = ledger.Grant("a", {10, 100, 0});
  EXPECT_EQ(ledger.charged(), 510u);  // it may have got that far
  ledger.Acknowledge("a", grow, {10, 60, 0});
  EXPECT_EQ(ledger.charged(), 510u);
  ledger.Acknowledge("a", shrink, {10, 100, 0});
  EXPECT_EQ(ledger.charged(), 110u);
}

TEST(DeviceLedger, DropGivesAllBackAndAnAnswerAfterwardsIsNothing) {
  DeviceLedger ledger = Ledger();
  const uint64_t epoch = ledger.Grant("a", {10, 200, 50});
  ledger.Quarantine("a");
  EXPECT_TRUE(ledger.Get("a").quarantined);
  EXPECT_EQ(ledger.charged(), 260u);
  ledger.Drop("a");
  ledger.Acknowledge("a", epoch, {10, 200, 50});
  EXPECT_EQ(ledger.charged(), 0u);
  EXPECT_FALSE(ledger.Get("a").quarantined);
}

TEST(DeviceLedger, StrangersMayExceedWeMayNot) {
  DeviceLedger ledger = Ledger();
  ledger.Grant("a", {0, 600, 0});
  ledger.SetForeign(500);
  EXPECT_EQ(ledger.free(), 0u);
  EXPECT_EQ(ledger.over(), 200u);
  ledger.Grant("a", {0, 100, 0});  // less is always allowed
#ifdef SWITCHYARD_ASSERTIONS
  EXPECT_DEATH(ledger.Grant("a", {0, 700, 0}), "broken invariant");
  DeviceLedger small = Ledger();
  EXPECT_DEATH(small.Grant("a", {0, 901, 0}), "broken invariant");
#endif
}

TEST(HostLedger, AMasterThatIsClosedCountsUntilItIsFreed) {
  HostLedger host(100);
  ASSERT_TRUE(host.SetMaster("a", 60));
  host.Close("a", 7);
  EXPECT_EQ(host.master("a"), 0u);
  EXPECT_EQ(host.closing(), 60u);
  EXPECT_FALSE(host.SetMaster("a", 60)) << "filled anew while the old one is still there";
  ASSERT_TRUE(host.SetMaster("a", 30));
  host.Close("a", 8);
  host.Freed(7);
  host.Freed(7);
  EXPECT_EQ(host.used(), 30u);
  host.Freed(8);
  EXPECT_EQ(host.free(), 100u);
  host.Close("nobody", 9);
  EXPECT_EQ(host.closing(), 0u);
}

TEST(HostLedger, RefusesWhatDoesNotFitAndChangesNothing) {
  HostLedger host(100);
  EXPECT_TRUE(host.SetMaster("a", 60));
  EXPECT_FALSE(host.SetPaused("a", 41));
  EXPECT_EQ(host.used(), 60u);
  EXPECT_TRUE(host.SetPaused("a", 40));
  EXPECT_TRUE(host.SetMaster("a", 60));  // the same again
  EXPECT_EQ(host.free(), 0u);
  EXPECT_TRUE(host.SetMaster("a", 0));
  EXPECT_EQ(host.used(), 40u);
  EXPECT_EQ(host.master("a"), 0u);
  EXPECT_EQ(host.paused("a"), 40u);
}

}  // namespace
}  // namespace switchyard::supervisor
