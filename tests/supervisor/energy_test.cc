#include "supervisor/energy.h"

#include <gtest/gtest.h>

namespace switchyard::supervisor {
namespace {

using Shares = std::map<std::string, double>;

DeviceSample At(Nanos at, std::optional<uint64_t> millijoules, std::optional<uint64_t> milliwatts) {
  DeviceSample sample;
  sample.at = at;
  sample.millijoules = millijoules;
  sample.milliwatts = milliwatts;
  return sample;
}

TEST(EnergyMeter, KnowsNothingUntilItIsTold) {
  EnergyMeter meter;
  EXPECT_EQ(meter.joules(), std::nullopt);
  meter.Add(At(kSecond, std::nullopt, std::nullopt));
  EXPECT_EQ(meter.joules(), std::nullopt);
}

TEST(EnergyMeter, CountsFromTheFirstSample) {
  EnergyMeter meter;
  meter.Add(At(kSecond, 5'000'000, 400'000));
  EXPECT_EQ(meter.joules(), 0);
  meter.Add(At(2 * kSecond, 5'000'250, 400'000));
  EXPECT_DOUBLE_EQ(*meter.joules(), 0.25) << "the counter, not the power";
  meter.Add(At(3 * kSecond, 5'100'000, std::nullopt));
  EXPECT_DOUBLE_EQ(*meter.joules(), 100);
}

TEST(EnergyMeter, ACounterThatWasSilentMakesUpForIt) {
  EnergyMeter meter;
  meter.Add(At(1 * kSecond, 1000, 100'000));
  meter.Add(At(2 * kSecond, std::nullopt, 100'000));
  meter.Add(At(3 * kSecond, std::nullopt, 100'000));
  EXPECT_EQ(meter.joules(), 0);
  meter.Add(At(4 * kSecond, 4000, 100'000));
  EXPECT_DOUBLE_EQ(*meter.joules(), 3);
}

TEST(EnergyMeter, ACounterThatGoesBackBeginsAnew) {
  EnergyMeter meter;
  meter.Add(At(1 * kSecond, 8000, std::nullopt));
  meter.Add(At(2 * kSecond, 9000, std::nullopt));
  meter.Add(At(3 * kSecond, 500, std::nullopt));
  EXPECT_DOUBLE_EQ(*meter.joules(), 1);
  meter.Add(At(4 * kSecond, 2500, std::nullopt));
  EXPECT_DOUBLE_EQ(*meter.joules(), 3);
}

TEST(EnergyMeter, IntegratesPowerWithoutACounter) {
  EnergyMeter meter;
  meter.Add(At(1 * kSecond, std::nullopt, 100'000));
  EXPECT_EQ(meter.joules(), 0);
  meter.Add(At(3 * kSecond / 2, std::nullopt, 300'000));
  EXPECT_DOUBLE_EQ(*meter.joules(), 100) << "200 W in the mean, half a second";
  meter.Add(At(7 * kSecond / 2, std::nullopt, 50'000));
  EXPECT_DOUBLE_EQ(*meter.joules(), 450);
}

TEST(EnergyMeter, DoesNotGuessWhatThePowerWasInAGap) {
  EnergyMeter meter;
  meter.Add(At(1 * kSecond, std::nullopt, 100'000));
  meter.Add(At(2 * kSecond, std::nullopt, std::nullopt));
  meter.Add(At(3 * kSecond, std::nullopt, 100'000));
  EXPECT_EQ(meter.joules(), 0);
  meter.Add(At(4 * kSecond, std::nullopt, 100'000));
  EXPECT_DOUBLE_EQ(*meter.joules(), 100);
  meter.Add(At(4 * kSecond, std::nullopt, 100'000));
  EXPECT_DOUBLE_EQ(*meter.joules(), 100) << "no time has gone by";
}

TEST(EnergyMeter, ACounterThatComesLaterTakesOver) {
  EnergyMeter meter;
  meter.Add(At(1 * kSecond, std::nullopt, 100'000));
  meter.Add(At(2 * kSecond, std::nullopt, 100'000));
  meter.Add(At(3 * kSecond, 70'000, 100'000));
  EXPECT_DOUBLE_EQ(*meter.joules(), 100);
  meter.Add(At(4 * kSecond, 71'000, 100'000));
  EXPECT_DOUBLE_EQ(*meter.joules(), 101);
}

TEST(EnergyShares, InProportionToTheTimeOfSteps) {
  EnergyShares shares;
  shares.Busy("a", 300);
  shares.Busy("b", 100);
  shares.Busy("idle", 0);
  EXPECT_EQ(shares.Settle(8), (Shares{{"a", 6}, {"b", 2}}));
  shares.Busy("a", 400);
  shares.Busy("b", 400);
  shares.Busy("idle", 0);
  EXPECT_EQ(shares.Settle(16), (Shares{{"a", 2}, {"b", 6}})) << "what is new, of what is new";
}

TEST(EnergyShares, OneAloneHasItAll) {
  EnergyShares shares;
  shares.Busy("a", 1);
  EXPECT_EQ(shares.Settle(100), (Shares{{"a", 100}}));
}

TEST(EnergyShares, AnIdleDevicesEnergyIsNobodys) {
  EnergyShares shares;
  EXPECT_EQ(shares.Settle(50), Shares{});
  shares.Busy("a", 0);
  EXPECT_EQ(shares.Settle(70), Shares{});
  shares.Busy("a", 10);
  EXPECT_EQ(shares.Settle(75), (Shares{{"a", 5}})) << "and does not fall to the next one";
}

TEST(EnergyShares, WaitsForEveryWorkersWord) {
  EnergyShares shares;
  shares.Busy("a", 100);
  shares.Busy("b", 100);
  EXPECT_EQ(shares.Settle(10), (Shares{{"a", 5}, {"b", 5}}));
  shares.Busy("a", 200);
  EXPECT_EQ(shares.Settle(20), Shares{}) << "b may be in the middle of a long step";
  shares.Busy("b", 400);
  EXPECT_EQ(shares.Settle(30), (Shares{{"a", 5}, {"b", 15}})) << "nothing is lost";
}

TEST(EnergyShares, TimesWaitForEnergy) {
  EnergyShares shares;
  shares.Busy("a", 100);
  EXPECT_EQ(shares.Settle(1), (Shares{{"a", 1}}));
  shares.Busy("a", 200);
  EXPECT_EQ(shares.Settle(1), Shares{}) << "the card's counter has not moved yet";
  EXPECT_EQ(shares.Settle(8), (Shares{{"a", 7}}));
}

TEST(EnergyShares, WhatRanBeforeTheFirstSampleHasNoEnergy) {
  EnergyShares shares;
  shares.Busy("a", 100);
  EXPECT_EQ(shares.Settle(0), Shares{});
  shares.Busy("a", 100);
  shares.Busy("b", 50);
  EXPECT_EQ(shares.Settle(6), (Shares{{"b", 6}}));
}

TEST(EnergyShares, AWorkerThatIsGoneIsNotWaitedForAndKeepsItsShare) {
  EnergyShares shares;
  shares.Busy("a", 100);
  shares.Busy("b", 100);
  EXPECT_EQ(shares.Settle(2), (Shares{{"a", 1}, {"b", 1}}));
  shares.Busy("b", 200);
  shares.Gone("a");
  shares.Gone("never heard of");
  EXPECT_EQ(shares.Settle(5), (Shares{{"b", 3}}));
  shares.Busy("b", 300);
  shares.Gone("b");
  EXPECT_EQ(shares.Settle(6), (Shares{{"b", 1}}));
  EXPECT_EQ(shares.Settle(9), Shares{});
}

TEST(EnergyShares, TheNextWorkerOfAModelStartsFromZero) {
  EnergyShares shares;
  shares.Busy("a", 1000);
  shares.Gone("a");
  shares.Busy("a", 200);
  shares.Busy("b", 1200);
  EXPECT_EQ(shares.Settle(10), (Shares{{"a", 5}, {"b", 5}})) << "both of a's workers count";
  shares.Busy("a", 300);
  shares.Busy("b", 1300);
  EXPECT_EQ(shares.Settle(20), (Shares{{"a", 5}, {"b", 5}}));
}

TEST(EnergyShares, ATimeThatGoesBackIsNoTime) {
  EnergyShares shares;
  shares.Busy("a", 100);
  shares.Busy("a", 90);
  shares.Busy("a", 100);
  shares.Busy("b", 100);
  EXPECT_EQ(shares.Settle(10), (Shares{{"a", 5}, {"b", 5}}));
}

}  // namespace
}  // namespace switchyard::supervisor
