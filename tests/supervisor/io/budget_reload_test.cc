#include "supervisor/budget_reload.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/temp_dir.h"

namespace switchyard::supervisor {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMiB = uint64_t{1} << 20;

class BudgetReloadTest : public ::testing::Test {
 protected:
  void Write(const std::string& text) { std::ofstream(file_) << text; }

  testing::TempDir dir_;
  const std::string file_ = dir_.path() + "/config.textproto";
};

BudgetInForce Now(const char* device, uint64_t bytes) {
  BudgetInForce now;
  now.config.add_devices(device);
  now.budget = {{{"cpu", bytes, 0}}, 7 * kMiB};
  return now;
}

TEST_F(BudgetReloadTest, ASizeChangesAndNothingElse) {
  Write("devices: \"cpu=32MiB\" host_memory: \"1GiB\" queue_limit: 3");
  const auto next = ReloadBudget(file_, Now("cpu=64MiB", 64 * kMiB));
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(next->budget.devices[0].capacity_bytes, 32 * kMiB);
  EXPECT_EQ(next->budget.host_bytes, 7 * kMiB);
  EXPECT_EQ(next->config.devices(0), "cpu=32MiB");
  EXPECT_EQ(next->config.queue_limit(), 0u);
}

TEST_F(BudgetReloadTest, WhatIsNotToldStaysAsItWasFound) {
  Write("devices: \"cpu\"");
  const auto next = ReloadBudget(file_, Now("cpu", 5 * kMiB));
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(next->budget.devices[0].capacity_bytes, 5 * kMiB);
}

TEST_F(BudgetReloadTest, WhatCannotBeIsRefused) {
  const BudgetInForce now = Now("cpu=64MiB", 64 * kMiB);
  for (const char* bad :
       {"devices: \"cpu=0\"", "devices: \"cpu=999TiB\"", "devices: \"no-such-gpu\"",
        "devices: \"cpu=1MiB\" devices: \"cpu=2MiB\"", "devices: \"cpu=banana\"", "device: 1"}) {
    Write(bad);
    EXPECT_EQ(ReloadBudget(file_, now).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_FALSE(ReloadBudget(dir_.path() + "/none", now).ok());
}

TEST_F(BudgetReloadTest, TheDevicesAreThoseOfTheStart) {
  Write("devices: \"cpu=32MiB\"");
  BudgetInForce now = Now("GPU-1", 64 * kMiB);
  now.budget.devices[0].name = "GPU-1";
  EXPECT_THAT(std::string(ReloadBudget(file_, now).status().message()),
              HasSubstr("must be GPU-1 as at the start"));
}

}  // namespace
}  // namespace switchyard::supervisor
