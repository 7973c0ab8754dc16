#include "common/usable_cores.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <thread>

namespace switchyard {
namespace {

TEST(UsableCores, QuotasAreRoundedUp) {
  EXPECT_EQ(CoresOfQuota("150000 100000"), 2);
  EXPECT_EQ(CoresOfQuota("200000 100000"), 2);
  EXPECT_EQ(CoresOfQuota("200001 100000"), 3);
  EXPECT_EQ(CoresOfQuota("1000 100000"), 1);
  EXPECT_EQ(CoresOfQuota("9000000000000000000 1"), 2147483647);
}

TEST(UsableCores, WhatIsNoQuotaIsNoLimit) {
  for (const char* text : {"max 100000", "-1 100000", "0 100000", "100000 0", "100000", " ", ""}) {
    EXPECT_EQ(CoresOfQuota(text), std::nullopt) << text;
  }
}

TEST(UsableCores, AffinityCounts) {
  EXPECT_GE(UsableCores(), 1);
  std::thread([] {
    cpu_set_t all, one;
    ASSERT_EQ(sched_getaffinity(0, sizeof(all), &all), 0);
    CPU_ZERO(&one);
    for (int cpu = 0; CPU_COUNT(&one) == 0; ++cpu) {
      if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &one);
    }
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    EXPECT_EQ(UsableCores(), 1);
  }).join();
}

}  // namespace
}  // namespace switchyard
