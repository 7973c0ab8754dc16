#include "supervisor/turns.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "absl/strings/str_cat.h"
#include "supervisor/catalog.h"

namespace switchyard::supervisor {
namespace {

Demand Wants(const std::string& model, Nanos due, Nanos swap = 0, Nanos turn = 0,
             int32_t priority = 0) {
  Demand demand;
  demand.model = model;
  demand.priority = priority;
  demand.prepared = true;
  demand.due = due;
  demand.swap = swap;
  demand.turn = turn;
  demand.requests = 1;
  return demand;
}

std::string Order(std::vector<Demand> demands, Nanos now, Nanos drain = 0) {
  RankDemands(demands, drain, now);
  std::string order;
  for (const Demand& d : demands) absl::StrAppend(&order, d.model, d.held ? "-" : "");
  return order;
}

TEST(Turns, SwitchesFirstThenPriorityThenAge) {
  auto wants = [](const char* model, Nanos since, DemandKind kind, int32_t priority = 0) {
    Demand demand = Wants(model, 0, 0, 0, priority);
    demand.since = since;
    demand.kind = kind;
    return demand;
  };
  const std::vector<Demand> order{
      wants("c", 1, DemandKind::kSwitch),      wants("b", 2, DemandKind::kSwitch),
      wants("a", 9, DemandKind::kRequests, 5), wants("b", 1, DemandKind::kRequests),
      wants("a", 2, DemandKind::kRequests),    wants("z", 0, DemandKind::kBackground)};
  for (size_t i = 0; i < order.size(); ++i) {
    for (size_t j = 0; j < order.size(); ++j) {
      EXPECT_EQ(RanksBefore(order[i], order[j]), i < j) << i << " " << j;
    }
  }
  std::vector<Demand> ranked(order.rbegin(), order.rend());
  RankDemands(ranked, 0, 10);
  for (size_t i = 0; i < order.size(); ++i) EXPECT_EQ(ranked[i].model, order[i].model) << i;
}

TEST(Turns, TimesFollowFromBytes) {
  EXPECT_EQ(SwapTime(50'000'000'000, 25e9), 2 * kSecond);
  EXPECT_EQ(SwapTime(1, 0), kSecond);
  EXPECT_EQ(SwapTime(uint64_t{1} << 60, 1), kLongestSwap);
  EXPECT_EQ(LeastTurn(0), kLeastTurn);
  EXPECT_EQ(LeastTurn(5 * kSecond), 10 * kSecond);
}

// At the latest, of requests that are chosen in time.
Nanos EndOfTurn(const Demand& d) { return d.due + d.swap + d.turn; }

// The sum over all but `model`.
Nanos OthersTime(const std::string& model, const std::vector<Demand>& demands, Nanos drain) {
  Nanos sum = 0;
  for (const Demand& d : demands) sum += d.model == model ? 0 : TurnTime(d, drain);
  return sum;
}

TEST(Turns, TheBoundIsTheLargerOfTheModelsOwnAndWhatTheOthersTake) {
  Demand background = Wants("z", 0, 100, 100);
  background.kind = DemandKind::kBackground;
  const std::vector<Demand> demands{Wants("a", 0, 3, 6), Wants("b", 0, 5, 10), Wants("m", 0, 7, 9),
                                    background};
  EXPECT_EQ(OthersTime("m", demands, 0), 24);
  EXPECT_EQ(OthersTime("m", demands, 4), 32);
  EXPECT_EQ(WaitBound(100, 0, 0, 24), 100);
  EXPECT_EQ(WaitBound(10, 0, 0, 24), 24);
  EXPECT_EQ(WaitBound(10, 2, 0, 24), 26);
  EXPECT_EQ(WaitBound(10, 0, 4, 32), 36);
  EXPECT_EQ(WaitBound(10, -5, 0, 24), 24);
}

TEST(Turns, OfTheLongestDurationsAThousandModelsAddUp) {
  std::vector<Demand> demands;
  for (int i = 0; i < 1000; ++i) {
    demands.push_back(Wants(absl::StrCat("m", i), 0, kLongestSwap, LeastTurn(kLongestSwap)));
  }
  const Nanos now = kLongestDuration;
  for (Demand& demand : demands) {
    const Nanos others = OthersTime(demand.model, demands, kRelease);
    demand.due = now + WaitBound(kLongestDuration, kLongestDuration, kRelease, others);
    ASSERT_GT(demand.due, now + kLongestDuration);
  }
  RankDemands(demands, kRelease, now);
  EXPECT_GE(demands.front().urgent_at, now + kLongestDuration - kRelease);
  EXPECT_GE(Slack(demands.front(), demands, kRelease, now), kLongestDuration);
}

TEST(Turns, AmongEqualsWhoRelievesMostWaitingForItsSwapIsFirst) {
  Demand slow = Wants("slow", 0, kSecond);
  Demand quick = Wants("quick", 0, kSecond / 10);
  slow.waited = 5 * kSecond;
  quick.waited = 2 * kSecond;
  EXPECT_EQ(Order({slow, quick}, 0), "quickslow");
  slow.waited = 50 * kSecond;
  EXPECT_EQ(Order({slow, quick}, 0), "slowquick");
  quick.priority = 1;
  EXPECT_EQ(Order({slow, quick}, 0), "quickslow");
}

// a, whose turn ends by 125, is before b: it starts by 100, and b by 150 - 25.
TEST(Turns, TheBoundsSayWhoMustStartWhen) {
  const Demand a = Wants("a", 100, 10, 15);
  const Demand b = Wants("b", 150, 10, 15, 9);
  std::vector<Demand> ranked{a, b};
  RankDemands(ranked, 0, 0);
  EXPECT_EQ(ranked[0].model, "b");  // by priority: there is time
  EXPECT_EQ(ranked[1].urgent_at, 100);
  EXPECT_EQ(Order({a, b}, 75), "ba");
  EXPECT_EQ(Order({a, b}, 76), "ab-");  // a would have to wait for 25
  EXPECT_EQ(Order({a, b}, 100), "ab-");
  EXPECT_EQ(Order({a, b}, 71, 2), "ba");  // and for draining, twice
  EXPECT_EQ(Order({a, b}, 72, 2), "ab-");
  // The last one, behind one that takes long, makes the first urgent.
  ranked = {a, Wants("b", 150, 60, 15), Wants("c", 190, 1, 40)};
  RankDemands(ranked, 0, 0);
  const auto first = std::min_element(ranked.begin(), ranked.end(),
                                      [](auto& x, auto& y) { return x.due < y.due; });
  EXPECT_EQ(first->urgent_at, 190 - 75 - 25);
}

Demand Operators(const std::string& model, Nanos asked, Nanos swap = 0, Nanos turn = 0) {
  Demand demand = Wants(model, 0, swap, turn);
  demand.kind = DemandKind::kSwitch;
  demand.since = demand.asked = asked;
  return demand;
}

// a must be loaded by 100, and has waited since 5; s takes 25.
TEST(Turns, ASwitchTakesNoMoreThanThoseWhoWereThereBeforeItHaveToSpare) {
  Demand a = Wants("a", 100, 10, 15);
  a.asked = 5;
  const Demand s = Operators("s", 6, 10, 15);
  EXPECT_EQ(Order({a, s}, 75), "sa");
  EXPECT_EQ(Order({a, s}, 76), "as-");
  EXPECT_EQ(Order({a, s}, 73, 1), "sa");  // and a's victims must leave, too
  EXPECT_EQ(Order({a, s}, 74, 1), "as-");
  EXPECT_EQ(Order({a, Operators("s", 5, 10, 15)}, 1000), "sa") << "its bound has this one in it";
  // Then nothing but a least turn holds up the first.
  std::vector<Demand> ranked{a, s};
  RankDemands(ranked, 0, 76);
  EXPECT_EQ(ranked[0].urgent_at, 76);
  // Switches keep their order. Who has been there for longer than all of these, goes before them.
  EXPECT_EQ(Order({a, s, Operators("t", 7)}, 76), "as-t-");
  EXPECT_EQ(Order({a, s, Operators("r", 4)}, 76), "ras-");
  // Requests that came later wait for the switch, unless they are due before those that did not.
  Demand b = Wants("b", 110, 10, 15);
  b.asked = 7;
  EXPECT_EQ(Order({b, s}, 1000), "sb");
  EXPECT_EQ(Order({a, b, s}, 76), "ab-s-");
  b.due = 90;
  EXPECT_EQ(Order({a, b, s}, 51), "bas-");
  // Nobody waits for who cannot use the time.
  a.prepared = false;
  EXPECT_EQ(Order({a, s}, 76), "sa");
}

TEST(Turns, WhoIsNotPreparedIsLastAndHoldsUpNobody) {
  Demand a = Wants("a", 10, 100, 100);
  a.prepared = false;
  EXPECT_EQ(Order({a, Wants("b", 500, 10, 10)}, 50), "ba");
}

TEST(Turns, AModelWithoutWorkGivesWayAtOnceButToTheSwitchThatItWaitsFor) {
  const Demand requests = Wants("m", 0, 1000);
  Demand operators = requests;
  operators.kind = DemandKind::kSwitch;
  EXPECT_EQ(GivesWayAt(Work{0, 0, 90, false}, requests, 50), 50);
  EXPECT_EQ(GivesWayAt(Work{0, 0, 90, true}, requests, 50), 90);
  EXPECT_EQ(GivesWayAt(Work{0, 0, 90, true}, operators, 50), 50);
}

TEST(Turns, ALeastTurnIsNotCutShort) {
  Demand demand = Wants("m", 0, 0, 0, 100);
  demand.urgent_at = 1;
  EXPECT_EQ(GivesWayAt(Work{1, 0, 90, false}, demand, 50), 90);
  demand.kind = DemandKind::kSwitch;
  EXPECT_EQ(GivesWayAt(Work{1, 0, 90, false}, demand, 50), 90);
  EXPECT_TRUE(InLeastTurn(Work{1, 0, 90, false}, demand, 50));
  EXPECT_FALSE(InLeastTurn(Work{1, 0, 90, false}, demand, 90));
  EXPECT_LE(GivesWayAt(Work{1, 0, 90, false}, demand, 90), 90);
}

TEST(Turns, WaitingIsWeighedAgainstWhatTheSwapCosts) {
  Demand demand = Wants("m", 0, 10);
  demand.requests = 3;
  demand.waited = 40;
  // 4 requests stand still for 20 each; 3 requests gather the missing 40 in 13.3.
  EXPECT_EQ(GivesWayAt(Work{4, 0, 0, false}, demand, 50), 64);
  EXPECT_EQ(GivesWayAt(Work{2, 0, 0, false}, demand, 50), 50);
  demand.urgent_at = 60;
  EXPECT_EQ(GivesWayAt(Work{4, 0, 0, false}, demand, 50), 60);
}

TEST(Turns, PriorityIsNotWeighed) {
  const Demand high = Wants("m", 0, 10, 10, 5);
  EXPECT_EQ(GivesWayAt(Work{9, 4, 0, false}, high, 50), 50);
  Demand low = Wants("m", 0, 10, 10, 3);
  low.waited = 1000;
  EXPECT_EQ(GivesWayAt(Work{9, 4, 0, false}, low, 50), kNever);
  low.urgent_at = 70;
  EXPECT_EQ(GivesWayAt(Work{9, 4, 0, false}, low, 50), 70);
}

// b must be loaded by 150, and before it, or after it, a by 100.
TEST(Turns, ADrainMayTakeWhatNobodyIsLateFor) {
  const Demand a = Wants("a", 100, 10, 15);
  const Demand b = Wants("b", 150, 10, 15);
  EXPECT_EQ(Slack(a, {a}, 0, 60), 40);
  EXPECT_EQ(Slack(a, {a}, 5, 60), 35);
  EXPECT_EQ(Slack(a, {a, b}, 0, 60), 40);
  EXPECT_EQ(Slack(a, {b, a}, 5, 95), 0) << "b is not late before 115";
  EXPECT_EQ(Slack(b, {a, b}, 0, 60), 15);
  EXPECT_EQ(Slack(b, {a, b}, 0, 80), 70) << "a is late, drain or no drain";
  EXPECT_EQ(Slack(Wants("c", 0), {a, Wants("c", 0)}, 0, 60), 40);
  EXPECT_EQ(Slack(Wants("c", 0), {Wants("c", 0)}, 0, 60), kNever);
  Demand operators = Wants("s", 0, 10, 15);
  operators.kind = DemandKind::kSwitch;
  EXPECT_EQ(Slack(a, {a, b, operators}, 0, 90), 10);
  EXPECT_EQ(Slack(a, {a, Wants("b", 135, 10, 15), operators}, 0, 80), 5) << "who goes before b";
  EXPECT_EQ(Slack(Wants("c", 0), {b, operators}, 0, 60), 65);
  operators.asked = 1;
  EXPECT_EQ(Slack(Wants("c", 0), {b, operators}, 0, 60), 90) << "it came after b";
  Demand unready = b;
  unready.prepared = false;
  EXPECT_EQ(Slack(a, {a, unready}, 0, 60), 40);
}

// The bound is kept: models that all wait, in turns that each take the whole of swap and least
// turn, and as much of the drain as is left, whatever their priorities and however they come back,
// and whatever operators ask for. These wait for who was there before them, and for no longer.
TEST(Turns, NobodyIsLateWhateverTheOthersWant) {
  for (uint64_t seed = 0; seed < 500; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    auto below = [&random](uint64_t n) { return static_cast<Nanos>(random() % n); };
    const Nanos release = below(5);
    const Nanos drain = below(20);
    const size_t models = 2 + random() % 8;
    std::vector<Demand> waiting;
    std::vector<Demand> away;
    for (size_t i = 0; i < models; ++i) {
      away.push_back(Wants(absl::StrCat("m", i), 0, 1 + below(50), 1 + below(100)));
    }
    std::map<std::string, Nanos> latest;  // that a switch is chosen
    Nanos now = 1000;
    Nanos present_until = now;
    for (int turn = 0; turn < 200; ++turn) {
      while (!away.empty() && (waiting.empty() || random() % 2 == 0)) {
        Demand demand = away.back();
        away.pop_back();
        demand.since = demand.asked = now;
        demand.priority = static_cast<int32_t>(below(3));
        waiting.push_back(demand);
      }
      if (random() % 3 == 0) {
        const std::string name = absl::StrCat("s", turn);
        waiting.push_back(Operators(name, now, 1 + below(50), 1 + below(100)));
        latest[name] = present_until;
      }
      for (Demand& demand : waiting) {
        if (demand.kind == DemandKind::kSwitch) continue;
        const Nanos bound =
            WaitBound(30, present_until - now, release, OthersTime(demand.model, waiting, release));
        demand.due = std::max(demand.due, demand.since + bound);
        demand.waited = now - demand.since;
      }
      for (const Demand& operators : waiting) {
        if (operators.kind != DemandKind::kSwitch) continue;
        Nanos until = present_until;
        Nanos switches = 0;
        for (const Demand& other : waiting) {
          if (other.asked >= operators.asked) continue;
          if (other.kind == DemandKind::kSwitch) switches += TurnTime(other, release) + drain;
          if (other.kind == DemandKind::kRequests) until = std::max(until, EndOfTurn(other));
        }
        latest[operators.model] = std::max(latest[operators.model], until + switches);
      }
      now = std::max(now, present_until);  // the least turn
      std::vector<Demand> ranked = waiting;
      RankDemands(ranked, release, now);
      const Demand next = ranked.front();
      const Nanos leaves = std::min(drain, Slack(next, waiting, release, now)) + release;
      if (next.kind == DemandKind::kSwitch) {
        ASSERT_LE(now, latest[next.model]) << next.model << " in turn " << turn;
      } else {
        ASSERT_LE(now + leaves, next.due) << next.model << " in turn " << turn;
      }
      std::erase_if(waiting, [&](const Demand& d) { return d.model == next.model; });
      now += leaves + next.swap;
      present_until = now + next.turn;
      if (next.kind != DemandKind::kSwitch) {
        away.insert(away.begin(), Wants(next.model, 0, next.swap, next.turn));
      }
      now += below(static_cast<uint64_t>(next.turn) + 1);
    }
  }
}

}  // namespace
}  // namespace switchyard::supervisor
