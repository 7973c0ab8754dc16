#include "supervisor/wait_meter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace switchyard::supervisor {
namespace {

constexpr Nanos kBound = 30 * kSecond;

class WaitMeterTest : public ::testing::Test {
 protected:
  void Runs(bool runs) { meter_.SetRuns(runs, now_); }
  void Bound(Nanos bound) { meter_.SetBound(bound, line_, now_); }
  void Comes(uint64_t id) {
    began_[id] = meter_.Reading(now_);
    line_.insert({began_[id], id});
  }
  void Leaves(uint64_t id) { line_.erase({began_[id], id}); }
  Nanos Due() const { return meter_.FirstDue(line_, now_).value_or(0); }
  std::vector<uint64_t> Overdue() const { return meter_.DueBy(now_, line_, now_); }

  WaitMeter meter_;
  WaitMeter::Line line_;
  std::map<uint64_t, Nanos> began_;
  Nanos now_ = 1000 * kSecond;
};

TEST_F(WaitMeterTest, NobodyWaitsOrNoBoundIsSet) {
  EXPECT_EQ(meter_.FirstDue(line_, now_), std::nullopt);
  Comes(1);
  EXPECT_EQ(meter_.FirstDue(line_, now_), std::nullopt);
  EXPECT_EQ(meter_.BoundOf(0), 0);
  Bound(kBound);
  EXPECT_EQ(Due(), now_ + kBound);
  Leaves(1);
  EXPECT_EQ(meter_.FirstDue(line_, now_), std::nullopt);
}

TEST_F(WaitMeterTest, WhoeverHasWaitedForTheBoundIsDueAndNobodyElse) {
  Runs(true);
  Comes(1);
  Bound(kBound);
  const Nanos due = now_ + kBound;
  now_ += 10 * kSecond;
  Comes(2);
  Bound(kBound);
  EXPECT_EQ(Due(), due);
  now_ = due - 1;
  EXPECT_TRUE(Overdue().empty());
  now_ = due;
  EXPECT_EQ(Overdue(), std::vector<uint64_t>{1});
  EXPECT_EQ(meter_.DueBy(due + 10 * kSecond, line_, now_), (std::vector<uint64_t>{1, 2}));
}

// A load that is begun and given up, again and again: what was waited before is not forgotten.
TEST_F(WaitMeterTest, WaitingAddsUpOverLoadsThatAreGivenUp) {
  Runs(true);
  Comes(1);
  for (int i = 0; i < 3; ++i) {
    Bound(kBound);
    now_ += 9 * kSecond;
    Runs(false);
    now_ += 100 * kSecond;
    EXPECT_TRUE(Overdue().empty());
    Runs(true);
  }
  EXPECT_NEAR(static_cast<double>(meter_.WaitedOf(began_[1], now_)), 27.0 * kSecond, 10);
  EXPECT_NEAR(static_cast<double>(Due() - now_), 3.0 * kSecond, 10);
}

TEST_F(WaitMeterTest, ATurnSettlesWhatWasWaited) {
  Runs(true);
  Comes(1);
  Bound(kBound);
  now_ += 29 * kSecond;
  Runs(false);
  now_ += kSecond;
  Comes(2);
  meter_.BeginAnew(now_);
  Runs(true);
  Bound(kBound);
  EXPECT_EQ(Due(), now_ + kBound);
  EXPECT_EQ(meter_.DueBy(Due(), line_, now_), (std::vector<uint64_t>{1, 2}));
}

TEST_F(WaitMeterTest, ABoundGrowsForAllAndFallsForThoseWhoComeLater) {
  Runs(true);
  Comes(1);
  Bound(kBound);
  now_ += kSecond;
  Bound(2 * kBound);
  EXPECT_EQ(meter_.BoundOf(began_[1]), 2 * kBound);
  Comes(2);
  now_ += kSecond;
  Bound(kBound);
  now_ += kSecond;
  Comes(3);
  Bound(kBound);
  EXPECT_EQ(meter_.BoundOf(began_[1]), 2 * kBound);
  EXPECT_EQ(meter_.BoundOf(began_[2]), 2 * kBound);
  EXPECT_EQ(meter_.BoundOf(began_[3]), kBound);
  EXPECT_EQ(Due(), now_ + kBound) << "the youngest is due first";
  now_ += kBound;
  EXPECT_EQ(Overdue(), std::vector<uint64_t>{3});
  Leaves(3);
  EXPECT_EQ(Due(), now_ + kBound - 3 * kSecond);
}

TEST_F(WaitMeterTest, LookingTwiceInOneInstantChangesNothing) {
  Runs(true);
  Comes(1);
  Bound(2 * kBound);
  now_ += kSecond;
  Comes(2);
  for (int i = 0; i < 3; ++i) Bound(kBound);
  Comes(3);
  for (int i = 0; i < 3; ++i) Bound(kBound);
  EXPECT_EQ(meter_.BoundOf(began_[1]), 2 * kBound);
  EXPECT_EQ(meter_.BoundOf(began_[2]), kBound);
  EXPECT_EQ(meter_.BoundOf(began_[3]), kBound);
}

// Against each request's own account: what it has waited, and the largest bound meanwhile.
TEST_F(WaitMeterTest, IsWhatEachWouldCountForItself) {
  struct Own {
    Nanos waited = 0;
    Nanos bound = 0;
  };
  for (uint64_t seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    auto below = [&random](int64_t n) {
      return static_cast<Nanos>(random() % static_cast<uint64_t>(n));
    };
    meter_ = WaitMeter();
    line_.clear();
    began_.clear();
    std::map<uint64_t, Own> own;
    uint64_t next = 1;
    int64_t stops = 0;  // each may cost a nanosecond
    for (int event = 0; event < 300; ++event) {
      const Nanos passed = 1 + below(2 * kSecond);
      now_ += passed;
      for (auto& [id, each] : own) each.waited += meter_.runs() ? passed : 0;
      switch (below(5)) {
        case 0:
          stops += meter_.runs();
          Runs(!meter_.runs());
          break;
        case 1:
          if (below(5) > 0) break;
          meter_.BeginAnew(now_);
          for (auto& [id, each] : own) each = Own();
          break;
        case 2:
          if (own.empty()) break;
          Leaves(own.begin()->first);
          own.erase(own.begin());
          break;
        default:
          Comes(next);
          own[next++] = Own();
      }
      if (!meter_.runs()) continue;
      const Nanos bound = (30 + below(3) * below(30)) * kSecond;
      for (Nanos looks = below(3); looks >= 0; --looks) Bound(bound);
      Nanos due = INT64_MAX;
      for (auto& [id, each] : own) {
        each.bound = std::max(each.bound, bound);
        ASSERT_EQ(meter_.BoundOf(began_[id]), each.bound) << id;
        ASSERT_NEAR(static_cast<double>(meter_.WaitedOf(began_[id], now_)),
                    static_cast<double>(each.waited), static_cast<double>(stops));
        due = std::min(due, now_ + each.bound - meter_.WaitedOf(began_[id], now_));
      }
      if (own.empty()) continue;
      ASSERT_EQ(Due(), due);
      const Nanos by = due + below(20 * kSecond);
      std::vector<uint64_t> late;
      for (auto& [id, each] : own) {
        if (now_ + each.bound - meter_.WaitedOf(began_[id], now_) <= by) late.push_back(id);
      }
      std::vector<uint64_t> told = meter_.DueBy(by, line_, now_);
      std::sort(told.begin(), told.end());
      ASSERT_EQ(told, late);
    }
  }
}

// A bound that falls all the time, as the rest of a turn does, costs no more than one that stands.
TEST_F(WaitMeterTest, WhatFallsSlowlyIsOneBound) {
  Runs(true);
  for (uint64_t id = 1; id <= 1000; ++id) {
    Comes(id);
    Bound(2 * kBound - now_ % kSecond);
    now_ += kMillisecond / 2;
    Bound(2 * kBound - now_ % kSecond);
    now_ += kMillisecond / 2;
  }
  EXPECT_LE(meter_.BoundOf(began_[1000]), 2 * kBound);
  EXPECT_GE(meter_.BoundOf(began_[1000]), 2 * kBound - kSecond);
}

}  // namespace
}  // namespace switchyard::supervisor
