#include "supervisor/config_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace switchyard::supervisor {
namespace {

using ::testing::HasSubstr;

absl::Status Check(std::initializer_list<std::string> devices, uint64_t reserve = 0) {
  v1::SupervisorConfig config;
  for (const std::string& device : devices) config.add_devices(device);
  if (reserve > 0) config.set_reserve_bytes(reserve);
  return ConfiguredBudget(config).status();
}

TEST(ConfigCheck, WhatCannotBeIsWrongUsage) {
  EXPECT_EQ(Check({"cpu=64MiB"}), absl::OkStatus());
  EXPECT_EQ(Check({"cpu=64MiB"}, 64 << 20), absl::OkStatus());
  for (const absl::Status& status :
       {Check({"cpu=0"}), Check({"cpu=-5"}), Check({"cpu=64MiB", "cpu=1MiB"}), Check({"cuda"}),
        Check({"cpu=64MiB"}, (64 << 20) + 1)}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  }
}

TEST(ConfigCheck, ASizeWithoutItsUnitIsNoDevice) {
  EXPECT_EQ(Check({"cpu=68"}), absl::InvalidArgumentError(
                                   "--device cpu=68: 68 bytes are less than 1.00 MiB; a size has "
                                   "a unit, as --device cpu=64GiB"));
  EXPECT_THAT(std::string(Check({"cpu=0"}).message()), HasSubstr("0 bytes are less than 1.00 MiB"));
  EXPECT_EQ(Check({"cpu=1MiB"}), absl::OkStatus());
  EXPECT_EQ(Check({"cpu=68000000"}), absl::OkStatus());
}

TEST(ConfigCheck, BothFiguresAreShown) {
  constexpr uint64_t kGiB = uint64_t{1} << 30;
  EXPECT_THAT(std::string(CheckMemory({{{"cpu", 25 * kGiB, 0}}, kGiB}, 24 * kGiB).message()),
              HasSubstr("25.0 GiB is more than the 24.0 GiB of memory"));
  // A GPU may have more memory than the machine.
  EXPECT_EQ(CheckMemory({{{"GPU-1", 80 * kGiB, 0}}, kGiB}, 24 * kGiB), absl::OkStatus());
  EXPECT_TRUE(absl::IsInvalidArgument(CheckMemory({{{"cpu", ~uint64_t{0}, 0}}, kGiB})));
  EXPECT_EQ(CheckMemory({{{"cpu", 1, 0}}, kGiB}), absl::OkStatus());
  // Masters are in the same memory, and are there for a GPU's models too.
  EXPECT_THAT(std::string(CheckMemory({{{"cpu", 20 * kGiB, 0}}, 5 * kGiB}, 24 * kGiB).message()),
              HasSubstr("5.00 GiB (host_memory) beside the 20.0 GiB of cpu is more than the "
                        "24.0 GiB of memory"));
  EXPECT_EQ(CheckMemory({{{"cpu", 20 * kGiB, 0}}, 4 * kGiB}, 24 * kGiB), absl::OkStatus());
  EXPECT_THAT(std::string(CheckMemory({{{"GPU-1", kGiB, 0}}, 25 * kGiB}, 24 * kGiB).message()),
              HasSubstr("25.0 GiB (host_memory) is more than the 24.0 GiB of memory"));
  EXPECT_TRUE(absl::IsInvalidArgument(CheckMemory({{{"GPU-1", kGiB, 0}}, ~uint64_t{0}})));
  EXPECT_THAT(std::string(Check({"cpu=64MiB"}, 65 << 20).message()),
              HasSubstr("65.0 MiB (reserve_bytes) is more than its capacity of 64.0 MiB"));
}

TEST(ConfigCheck, TheDefaultModelIsInTheCatalog) {
  ModelEntry entry;
  entry.model.set_name("a");
  EXPECT_EQ(CheckDefaultModel("", {entry}), absl::OkStatus());
  EXPECT_EQ(CheckDefaultModel("a", {entry}), absl::OkStatus());
  EXPECT_EQ(CheckDefaultModel("b", {entry}),
            absl::NotFoundError("default_model: there is no model named b, but a"));
}

}  // namespace
}  // namespace switchyard::supervisor
