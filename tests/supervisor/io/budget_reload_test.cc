#include "supervisor/budget_reload.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/available_memory.h"
#include "supervisor/config_check.h"

namespace switchyard::supervisor {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint64_t kMiB = uint64_t{1} << 20;

Configuration Told(const std::string& text) {
  Configuration told;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &told.config)) << text;
  return told;
}

InForce Now(const char* device, uint64_t bytes) {
  InForce now;
  now.told.config.add_devices(device);
  now.budget = {{{"cpu", bytes, 0}}, 7 * kMiB};
  return now;
}

TEST(BudgetReload, ASizeChangesAndNothingElse) {
  const auto next = ReloadBudget(Told("devices: 'cpu=32MiB' host_memory: '1GiB' queue_limit: 3"),
                                 Now("cpu=64MiB", 64 * kMiB));
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(next->budget.devices[0].capacity_bytes, 32 * kMiB);
  EXPECT_EQ(next->budget.host_bytes, 7 * kMiB);
  EXPECT_EQ(next->told.config.devices(0), "cpu=32MiB");
  EXPECT_EQ(next->told.config.queue_limit(), 0u);
}

TEST(BudgetReload, WhatIsNotToldStaysAsItWasFound) {
  const auto next = ReloadBudget(Told("devices: 'cpu'"), Now("cpu", 5 * kMiB));
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(next->budget.devices[0].capacity_bytes, 5 * kMiB);
}

// As a start would find it.
TEST(BudgetReload, ASizeThatIsNotToldAnyMoreIsFound) {
  const auto start = ConfiguredBudget(Told("devices: 'cpu'").config);
  ASSERT_TRUE(start.ok()) << start.status();
  const InForce now = Now("cpu=1MiB", kMiB);
  for (const char* text : {"devices: 'cpu'", ""}) {
    const auto next = ReloadBudget(Told(text), now);
    ASSERT_TRUE(next.ok()) << next.status();
    EXPECT_NE(next->budget.devices[0].capacity_bytes, kMiB) << text;
  }
}

TEST(BudgetReload, WhatCannotBeIsRefused) {
  const InForce now = Now("cpu=64MiB", 64 * kMiB);
  for (const char* bad : {"devices: 'cpu=0'", "devices: 'cpu=999TiB'", "devices: 'no-such-gpu'",
                          "devices: 'cpu=1MiB' devices: 'cpu=2MiB'", "devices: 'cpu=banana'"}) {
    EXPECT_EQ(ReloadBudget(Told(bad), now).status().code(), absl::StatusCode::kInvalidArgument)
        << bad;
  }
}

// Though it would only count from then on.
TEST(BudgetReload, WhatTheNextStartWouldRefuseIsRefused) {
  const InForce now = Now("cpu=64MiB", 64 * kMiB);
  for (const auto& [more, why] : {std::pair("host_memory: '999TiB'", "999.0 TiB (host_memory)"),
                                  std::pair("reserve_bytes: 67108865", "(reserve_bytes)")}) {
    const auto next = ReloadBudget(Told(absl::StrCat("devices: 'cpu=64MiB' ", more)), now);
    EXPECT_THAT(std::string(next.status().message()), HasSubstr(why));
  }
  const auto next = ReloadBudget(Told("devices: 'cpu=64MiB' reserve_bytes: 1"), now);
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(next->budget.devices[0].reserve_bytes, 0u);
}

TEST(BudgetReload, TheHostBudgetInForceCounts) {
  const auto memory = TotalMemory();
  ASSERT_TRUE(memory.ok()) << memory.status();
  InForce now = Now("cpu=1MiB", kMiB);
  now.budget.host_bytes = *memory - 2 * kMiB;
  const auto fits = ReloadBudget(Told("devices: 'cpu=2MiB'"), now);
  EXPECT_TRUE(fits.ok()) << fits.status();
  EXPECT_THAT(std::string(ReloadBudget(Told("devices: 'cpu=3MiB'"), now).status().message()),
              AllOf(HasSubstr("(host_memory) beside the 3.00 MiB of cpu"),
                    HasSubstr("until a restart host_memory is that of the last start"),
                    HasSubstr("a restart takes the file as it is")));
}

TEST(BudgetReload, TheDevicesAreThoseOfTheStart) {
  InForce now = Now("GPU-1", 64 * kMiB);
  now.budget.devices[0].name = "GPU-1";
  EXPECT_THAT(std::string(ReloadBudget(Told("devices: 'cpu=32MiB'"), now).status().message()),
              HasSubstr("must be GPU-1 as at the start"));
}

}  // namespace
}  // namespace switchyard::supervisor
