#include "supervisor/scheduler.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace switchyard::supervisor {
namespace {

// Fixed 10, 10 chunks of 20, KV smallest 30, useful 90: 240 to be whole.
SchedulerModel Model(const std::string& name, Bytes lease, Nanos last_use = 0) {
  SchedulerModel model;
  model.tenant.model = name;
  model.tenant.needs = Needs{10, 200, 20, 30, 90, 10};
  model.tenant.lease = lease;
  model.tenant.last_use = last_use;
  model.charge = lease;
  return model;
}
const Bytes kNone{0, 0, 0};
const Bytes kWhole{10, 200, 30};

SchedulerDevice DeviceWith(uint64_t capacity, const std::vector<SchedulerModel>& models,
                           uint64_t foreign = 0) {
  SchedulerDevice device{"cpu", capacity, 0, foreign, 0, 0};
  uint64_t taken = foreign;
  for (const SchedulerModel& model : models) taken += model.charge.total();
  device.free = taken > capacity ? 0 : capacity - taken;
  device.over = taken > capacity ? taken - capacity : 0;
  return device;
}

Demand Wants(const std::string& model, Nanos since, DemandKind kind = DemandKind::kRequests,
             int32_t priority = 0) {
  Demand demand{model, kind, priority, since, true};
  demand.requests = 1;
  return demand;
}

TEST(Scheduler, RoomMeansNoVictims) {
  const std::vector<SchedulerModel> models{Model("a", kWhole), Model("b", kNone)};
  const Decision d = Decide(DeviceWith(480, models), models, {Wants("b", 1)}, 0);
  ASSERT_TRUE(d.start);
  EXPECT_EQ(d.start->demand.model, "b");
  EXPECT_TRUE(d.start->shrinks.empty());
}

TEST(Scheduler, TakesOnlyWhatIsMissing) {
  const std::vector<SchedulerModel> models{Model("a", kWhole, 5), Model("b", Bytes{10, 160, 0})};
  // b lacks 70, and 40 are free.
  const Decision d = Decide(DeviceWith(450, models), models, {Wants("b", 1)}, 0);
  ASSERT_TRUE(d.start);
  ASSERT_EQ(d.start->shrinks.size(), 1u);
  EXPECT_EQ(d.start->shrinks[0].target, (Bytes{10, 200, 0}));
}

TEST(Scheduler, AnUnreadySwitchIsOvertakenByRequestsNotBySwitches) {
  const std::vector<SchedulerModel> models{Model("a", kNone), Model("b", kNone), Model("c", kNone)};
  Demand unready = Wants("a", 1, DemandKind::kSwitch);
  unready.prepared = false;
  const SchedulerDevice device = DeviceWith(300, models);
  Decision d = Decide(device, models, {unready, Wants("b", 2, DemandKind::kSwitch)}, 0);
  EXPECT_FALSE(d.start);
  d = Decide(device, models, {unready, Wants("b", 2, DemandKind::kSwitch), Wants("c", 1)}, 0);
  ASSERT_TRUE(d.start);
  EXPECT_EQ(d.start->demand.model, "c");
}

TEST(Scheduler, ASwitchDoesNotWaitForWhatOutlastedADrainAndRequestsDo) {
  std::vector<SchedulerModel> models{Model("a", kWhole), Model("b", kNone)};
  models[0].tenant.active = models[0].tenant.stays = true;
  models[0].work.requests = 1;
  const SchedulerDevice device = DeviceWith(300, models);
  Decision d = Decide(device, models, {Wants("b", 1, DemandKind::kSwitch)}, 0);
  EXPECT_FALSE(d.start);
  EXPECT_EQ(d.refused, std::vector<std::string>{"b"});
  d = Decide(device, models, {Wants("b", 1)}, 0);
  EXPECT_FALSE(d.start);
  EXPECT_TRUE(d.refused.empty());
  models[0].tenant.stays = false;
  EXPECT_TRUE(Decide(device, models, {Wants("b", 1, DemandKind::kSwitch)}, 0).start);
}

TEST(Scheduler, AModelMayComeInWhileTheLastSecondsOfItsMasterAreRead) {
  EXPECT_FALSE(FillEndsSoon(0, 100, kSecond));  // nobody knows yet
  EXPECT_FALSE(FillEndsSoon(10, 100, kSecond));
  EXPECT_FALSE(FillEndsSoon(90, 100, 60 * kSecond));
  EXPECT_TRUE(FillEndsSoon(50, 100, 5 * kSecond));
  EXPECT_TRUE(FillEndsSoon(1, 100, 50 * kMillisecond));
  EXPECT_TRUE(FillEndsSoon(100, 100, 1000 * kSecond));
}

TEST(Scheduler, ATurnIsNotCutShort) {
  std::vector<SchedulerModel> models{Model("a", kWhole), Model("b", kNone)};
  models[0].work = Work{1, 0, 100, false};
  const SchedulerDevice device = DeviceWith(300, models);
  Decision d = Decide(device, models, {Wants("b", 1, DemandKind::kSwitch)}, 50);
  EXPECT_FALSE(d.start);
  EXPECT_EQ(d.recheck_at, 100);
  d = Decide(device, models, {Wants("b", 1, DemandKind::kSwitch)}, 100);
  EXPECT_TRUE(d.start);
}

TEST(Scheduler, WorkIsWeighedAgainstWaiting) {
  std::vector<SchedulerModel> models{Model("a", kWhole), Model("b", kNone), Model("c", kNone)};
  models[0].work = Work{2, 0, 0, false};
  models[2].tenant.needs = Needs{1, 20, 20, 1, 1, 1};  // fits beside a
  const SchedulerDevice device = DeviceWith(300, models);
  Demand b = Wants("b", 1);
  b.swap = 10;  // costs two requests 20 each
  b.waited = 30;
  Decision d = Decide(device, models, {b}, 50);
  EXPECT_FALSE(d.start);
  EXPECT_EQ(d.recheck_at, 61);
  EXPECT_TRUE(d.blocked.empty());
  // Who takes nobody's place overtakes.
  d = Decide(device, models, {b, Wants("c", 2)}, 50);
  ASSERT_TRUE(d.start);
  EXPECT_EQ(d.start->demand.model, "c");
  b.waited = 40;
  EXPECT_TRUE(Decide(device, models, {b}, 50).start);
  b.waited = 0;
  b.kind = DemandKind::kSwitch;
  EXPECT_TRUE(Decide(device, models, {b}, 50).start);
}

TEST(Scheduler, ModelsWithoutWorkGiveWayAtOnce) {
  std::vector<SchedulerModel> models{Model("a", kWhole), Model("b", kWhole), Model("c", kNone)};
  models[0].work = Work{1, 0, 0, false};
  Demand c = Wants("c", 1);
  c.swap = 1000;
  const Decision d = Decide(DeviceWith(480, models), models, {c}, 50);
  ASSERT_TRUE(d.start);
  ASSERT_EQ(d.start->shrinks.size(), 1u);
  EXPECT_EQ(d.start->shrinks[0].model, "b");
}

TEST(Scheduler, AHealthyModelIsNotEvictedForOneThatFails) {
  std::vector<SchedulerModel> models{Model("a", kWhole), Model("b", kNone),
                                     Model("c", Bytes{10, 180, 0})};
  Demand b = Wants("b", 1);
  b.failing = true;
  Decision d = Decide(DeviceWith(430, models), models, {b}, 50);
  EXPECT_FALSE(d.start);
  EXPECT_EQ(d.blocked, std::vector<std::string>{"b"});
  // What is not resident anyway may give what it has, and an operator may insist.
  EXPECT_TRUE(Decide(DeviceWith(490, models), models, {b}, 50).start);
  b.kind = DemandKind::kSwitch;
  EXPECT_TRUE(Decide(DeviceWith(430, models), models, {b}, 50).start);
}

TEST(Scheduler, WhoFailsHasTheRoomThatNobodyResidentGivesUp) {
  std::vector<SchedulerModel> models{Model("a", kWhole), Model("b", kNone),
                                     Model("c", Bytes{10, 180, 0})};
  const auto has_room = [&](uint64_t capacity, const std::string& comes_in = "") {
    return HasRoomBesideResidents(DeviceWith(capacity, models), models, "b", comes_in);
  };
  EXPECT_FALSE(has_room(479));
  EXPECT_TRUE(has_room(480));
  EXPECT_FALSE(has_room(719, "c")) << "which will be resident soon";
  EXPECT_TRUE(has_room(720, "c"));
  models[0].ending = true;
  EXPECT_FALSE(has_room(239));
  EXPECT_TRUE(has_room(240));
}

// m is due first, at 100. n would take 15.
TEST(Scheduler, NobodyMakesAnotherMissItsBound) {
  std::vector<SchedulerModel> models{Model("a", kWhole), Model("m", kNone), Model("n", kNone)};
  Demand m = Wants("m", 1);
  m.due = 2 * kRelease + 100;
  m.swap = 20;
  Demand n = Wants("n", 2, DemandKind::kRequests, 5);
  n.due = 3 * kRelease + 300;
  n.swap = 5;
  n.turn = 10;
  const SchedulerDevice device = DeviceWith(300, models);
  EXPECT_EQ(Decide(device, models, {m, n}, 85).start->demand.model, "n");
  EXPECT_EQ(Decide(device, models, {m, n}, 86).start->demand.model, "m");
  // Unless it takes nobody's place.
  models[2].tenant.needs = Needs{1, 20, 20, 1, 1, 1};
  models[0].work = Work{1, 9, 90, false};
  EXPECT_FALSE(Decide(device, models, {m, n}, 86).start);  // a's least turn
  models[0].work.turn_until = 0;
  EXPECT_EQ(Decide(device, models, {m, n}, kRelease + 99).start->demand.model, "n");
  EXPECT_EQ(Decide(device, models, {m, n}, kRelease + 100).start->demand.model, "m");
}

TEST(Scheduler, NobodyOvertakesWhoWaitsForATurnToEnd) {
  std::vector<SchedulerModel> models{Model("a", kWhole), Model("b", kNone), Model("c", kNone)};
  models[2].tenant.needs = Needs{1, 20, 20, 1, 1, 1};  // would fit beside a
  models[0].work = Work{1, 0, 100, false};
  const Decision d = Decide(DeviceWith(300, models), models, {Wants("b", 1), Wants("c", 2)}, 50);
  EXPECT_FALSE(d.start);
}

TEST(Scheduler, WhoNeedsAPausedModelsFixedBytesLetsItGoFirst) {
  std::vector<SchedulerModel> models{Model("a", Bytes{10, 0, 0}), Model("b", kNone)};
  models[0].tenant.paused = true;
  const Decision d = Decide(DeviceWith(245, models), models, {Wants("b", 1), Wants("a", 2)}, 0);
  ASSERT_TRUE(d.start);
  EXPECT_EQ(d.start->demand.model, "a");
}

TEST(Scheduler, RefusesWithTheArithmetic) {
  std::vector<SchedulerModel> models{Model("a", kWhole), Model("b", kNone), Model("c", kWhole)};
  models[0].tenant.pinned = true;
  models[2].quarantined = true;
  const SchedulerDevice device = DeviceWith(500, models, 15);
  EXPECT_EQ(PlanSwap(device, models, Wants("b", 1), 0).verdict, Verdict::kRefuse);
  const std::vector<Refused> refusals = Refusals(device, models, {Wants("b", 1)});
  ASSERT_EQ(refusals.size(), 1u);
  EXPECT_EQ(refusals[0].reason,
            "b needs 240 B (fixed 10 B + weights 200 B + smallest KV pool 30 B), but cpu has "
            "500 B: 0 B reserve, 15 B used by other programs, kept by a (pinned) 240 B, "
            "c (its worker cannot be ended) 240 B. Unpin a");
}

// Its own bytes are no reason to refuse a model that is to have them anew.
TEST(Scheduler, RefusesNobodyForItsOwnBytesThatComeBack) {
  std::vector<SchedulerModel> models{Model("a", Bytes{10, 200, 90})};
  EXPECT_EQ(Refusals(DeviceWith(250, models), models, {Wants("a", 1)}).size(), 1u);
  models[0].ending = true;
  EXPECT_TRUE(Refusals(DeviceWith(250, models), models, {Wants("a", 1)}).empty());
  EXPECT_EQ(Refusals(DeviceWith(239, models), models, {Wants("a", 1)}).size(), 1u);
  models[0].quarantined = true;
  EXPECT_EQ(Refusals(DeviceWith(250, models), models, {Wants("a", 1)}).size(), 1u);
  models[0].ending = models[0].quarantined = models[0].settled = false;
  models[0].tenant.lease = Bytes{10, 100, 0};
  EXPECT_TRUE(Refusals(DeviceWith(250, models), models, {Wants("a", 1)}).empty());
  models[0].tenant.lease = Bytes{10, 200, 90};  // it grows
  EXPECT_EQ(Refusals(DeviceWith(250, models), models, {Wants("a", 1)}).size(), 1u);
}

TEST(Scheduler, RefusesWhoIsAskedWithoutAWorkerAsWell) {
  std::vector<SchedulerModel> models{Model("a", kWhole), Model("b", kNone)};
  models[0].tenant.pinned = true;
  const SchedulerDevice device = DeviceWith(300, models);
  EXPECT_TRUE(Refusals(device, models, {}).empty());
  models[1].asked = true;
  EXPECT_EQ(Refusals(device, models, {}).size(), 1u);
  models[0].tenant.pinned = false;
  models[0].work = Work{1, 0, 100, false};  // is no reason: it ends
  EXPECT_TRUE(Refusals(device, models, {}).empty());
  models[0].tenant.pinned = true;
  models[0].ending = true;  // neither is what comes back
  EXPECT_TRUE(Refusals(device, models, {}).empty());
}

TEST(Scheduler, BytesOnTheirWayBackAreAwaitedNotTakenTwice) {
  std::vector<SchedulerModel> models{Model("a", Bytes{10, 0, 0}), Model("b", kNone),
                                     Model("c", kWhole)};
  models[0].charge = kWhole;  // shrinks already
  models[0].settled = false;
  const Decision d = Decide(DeviceWith(490, models), models, {Wants("b", 1)}, 0);
  ASSERT_TRUE(d.start);
  EXPECT_TRUE(d.start->shrinks.empty());
}

TEST(Scheduler, BackgroundDisturbsNobody) {
  std::vector<SchedulerModel> models{Model("a", kWhole), Model("b", kNone)};
  const SchedulerDevice device = DeviceWith(300, models);
  EXPECT_TRUE(Decide(device, models, {Wants("b", 0, DemandKind::kBackground)}, 0).start);
  models[0].tenant.active = true;
  const Decision d = Decide(device, models, {Wants("b", 0, DemandKind::kBackground)}, 0);
  EXPECT_FALSE(d.start);
}

TEST(Scheduler, GrowTargetTakesWhatIsFreeUpToUseful) {
  const Needs needs{10, 200, 20, 30, 90, 10};
  EXPECT_EQ(GrowTarget(needs, kNone, 239), std::nullopt);
  EXPECT_EQ(GrowTarget(needs, kNone, 240), (Bytes{10, 200, 30}));
  EXPECT_EQ(GrowTarget(needs, kNone, 259), (Bytes{10, 200, 40}));
  EXPECT_EQ(GrowTarget(needs, kNone, 1000), (Bytes{10, 200, 90}));
  EXPECT_EQ(GrowTarget(needs, Bytes{10, 100, 0}, 130), (Bytes{10, 200, 30}));
}

TEST(Scheduler, PoolsOfTheStarvedGrowIntoWhatIsFree) {
  std::vector<SchedulerModel> models{Model("a", kWhole), Model("b", kWhole), Model("c", kWhole)};
  EXPECT_TRUE(PlanPools(DeviceWith(1000, models), models).empty());
  models[1].starved = models[2].starved = true;
  const auto growths = PlanPools(DeviceWith(720 + 85, models), models);
  ASSERT_EQ(growths.size(), 2u);
  EXPECT_EQ(growths[0].target, (Bytes{10, 200, 90}));
  EXPECT_EQ(growths[1].target, (Bytes{10, 200, 50}));
  EXPECT_TRUE(PlanPools(DeviceWith(725, models), models).empty());
}

TEST(Scheduler, WhatIsOpenForNobodyGoesForPoolsThatFindTooLittle) {
  std::vector<SchedulerModel> models{Model("a", kWhole), Model("b", Bytes{10, 0, 0}),
                                     Model("c", Bytes{10, 0, 0}), Model("d", Bytes{10, 0, 0})};
  for (size_t i : {1, 2, 3}) models[i].tenant.unused = true;
  models[1].tenant.pinned = true;
  EXPECT_TRUE(PlanPoolRoom(DeviceWith(270, models), models, 0).empty()) << "nobody is starved";
  models[0].starved = true;
  // 30 more let its pool double.
  const auto all = PlanPoolRoom(DeviceWith(280, models), models, 0);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].model, "c");
  EXPECT_TRUE(all[0].end_worker && all[1].end_worker);
  EXPECT_EQ(PlanPoolRoom(DeviceWith(295, models), models, 0).size(), 1u);
  EXPECT_TRUE(PlanPoolRoom(DeviceWith(300, models), models, 0).empty());
}

// As much as lets the pool double, 30 more: more may be asked for later.
TEST(Scheduler, WhatIdleModelsKeepGoesForPoolsThatFindTooLittle) {
  std::vector<SchedulerModel> models{Model("a", kWhole, 3), Model("left", Bytes{10, 80, 0}, 1),
                                     Model("idle", Bytes{10, 200, 60}, 2)};
  const auto plan = [&](uint64_t free) {
    return PlanPoolRoom(DeviceWith(600 + free, models), models, 10);
  };
  EXPECT_TRUE(plan(0).empty()) << "nobody is starved";
  models[0].starved = true;
  // Spare KV first, and what is left of a model; neither whole models nor workers.
  auto shrinks = plan(0);
  ASSERT_EQ(shrinks.size(), 1u);
  EXPECT_EQ(shrinks[0].target, (Bytes{10, 200, 30}));
  EXPECT_TRUE(plan(30).empty());
  models[2].tenant.lease.kv = models[2].charge.kv = 30;
  shrinks = PlanPoolRoom(DeviceWith(570, models), models, 10);
  ASSERT_EQ(shrinks.size(), 1u);
  EXPECT_EQ(shrinks[0].model, "left");
  EXPECT_EQ(shrinks[0].target.fixed, 10u);
  EXPECT_LE(shrinks[0].target.weights, 50u);
  EXPECT_FALSE(shrinks[0].end_worker);
  // Nobody's who is busy, starved, pinned or in motion.
  models[1].tenant.pinned = true;
  EXPECT_TRUE(PlanPoolRoom(DeviceWith(570, models), models, 10).empty());
  models[1].tenant.pinned = false;
  models[1].settled = false;
  EXPECT_TRUE(PlanPoolRoom(DeviceWith(570, models), models, 10).empty());
}

TEST(Scheduler, StrangersAreGivenWayTo) {
  std::vector<SchedulerModel> models{Model("a", Bytes{10, 200, 90}, 1), Model("b", kWhole, 2)};
  EXPECT_TRUE(PlanRelief(DeviceWith(600, models), models, "", 9).empty());
  const std::vector<Shrink> some = PlanRelief(DeviceWith(600, models, 100), models, "", 9);
  ASSERT_EQ(some.size(), 1u);
  EXPECT_EQ(some[0].target, (Bytes{10, 200, 50}));
}

TEST(Scheduler, SeveralWhoWaitDoNotTurnPrioritiesOff) {
  std::vector<SchedulerModel> models{Model("a", kWhole), Model("b", kNone), Model("c", kNone),
                                     Model("d", kNone)};
  models[0].work.requests = 1;
  models[0].work.priority = 5;
  models[0].tenant.active = true;
  std::vector<Demand> demands;
  for (const char* name : {"b", "c", "d"}) {
    demands.push_back(Wants(name, 0));
    demands.back().swap = kSecond / 10;
    demands.back().turn = kSecond / 5;
    demands.back().due = 30 * kSecond;
  }
  const Decision d = Decide(DeviceWith(240, models), models, demands, kSecond);
  EXPECT_FALSE(d.start) << "they have time";
  EXPECT_GT(d.recheck_at, 25 * kSecond);
  EXPECT_TRUE(Decide(DeviceWith(240, models), models, demands, d.recheck_at).start);
}

TEST(Scheduler, NoLongLoadBeginsForAPinWhileARequestWaits) {
  std::vector<SchedulerModel> models{Model("a", kWhole), Model("b", kNone), Model("p", kNone)};
  models[0].work.requests = 1;
  models[0].tenant.active = true;
  models[2].tenant.needs = Needs{10, 50, 10, 10, 20, 10};
  models[2].tenant.pinned = true;
  Demand waits = Wants("b", 0);
  waits.swap = 100 * kSecond;  // as yet it weighs less than a's work
  Demand pin = Wants("p", 0, DemandKind::kBackground);
  pin.requests = 0;
  const SchedulerDevice device = DeviceWith(240 + 70, models);
  const auto starts = [&](Nanos swap, std::vector<Demand> demands) {
    pin.swap = swap;
    demands.push_back(pin);
    const Decision d = Decide(device, models, demands, 1);
    return d.start ? d.start->demand.model : "";
  };
  EXPECT_EQ(starts(60 * kSecond, {}), "p");
  EXPECT_EQ(starts(60 * kSecond, {waits}), "");
  EXPECT_EQ(starts(kSecond, {waits}), "p");
}

TEST(Scheduler, StrangersAreNotGivenWhatComesIn) {
  const std::vector<SchedulerModel> models{Model("a", Bytes{10, 100, 0}, 1), Model("b", kWhole, 2)};
  const auto victim = [&](const std::string& comes_in) {
    const auto relief = PlanRelief(DeviceWith(350, models, 50), models, comes_in, 9);
    return relief.empty() ? "" : relief[0].model;
  };
  EXPECT_EQ(victim(""), "a");
  EXPECT_EQ(victim("a"), "b");
}

// Issue of scale: what waits is collated by model, so the cost depends on models alone.
TEST(Scheduler, DecidesAmongAHundredModels) {
  std::vector<SchedulerModel> models;
  std::vector<Demand> demands;
  for (int i = 0; i < 100; ++i) {
    models.push_back(Model(absl::StrCat("m", i), i < 50 ? kWhole : kNone, i));
    if (i >= 50) demands.push_back(Wants(absl::StrCat("m", i), 100 - i));
  }
  const Decision d = Decide(DeviceWith(240 * 50, models), models, demands, 0);
  ASSERT_TRUE(d.start);
  EXPECT_EQ(d.start->demand.model, "m99");
  EXPECT_EQ(d.start->shrinks[0].model, "m0");
}

}  // namespace
}  // namespace switchyard::supervisor
