#include "common/available_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace switchyard {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;

TEST(AvailableMemory, ThePageCacheOfAGroupIsAvailableHoweverOftenItWasRead) {
  std::istringstream second("anon 7\nfile 99\ninactive_anon 5\ninactive_file 30\nactive_file 12\n");
  EXPECT_EQ(PageCacheInGroup(second), 42u);
  std::istringstream first(
      "cache 9\ninactive_file 3\nactive_file 1\ntotal_inactive_file 30\ntotal_active_file 12\n");
  EXPECT_EQ(PageCacheInGroup(first), 42u);
  std::istringstream none("");
  EXPECT_EQ(PageCacheInGroup(none), 0u);
}

TEST(AvailableMemory, TheReserveStays) {
  EXPECT_TRUE(CheckHostHas(36 * kMiB, kHostReserve + 36 * kMiB).ok());
  EXPECT_TRUE(CheckHostHas(UINT64_MAX - kHostReserve, UINT64_MAX).ok());
  for (const absl::Status& refused :
       {CheckHostHas(36 * kMiB + 1, kHostReserve + 36 * kMiB), CheckHostHas(0, kHostReserve - 1),
        CheckHostHas(UINT64_MAX, 0)}) {
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_TRUE(IsHostShort(refused)) << refused;
  }
  EXPECT_THAT(std::string(CheckHostHas(90 * kMiB, 40 * kMiB).message()),
              HasSubstr("90.0 MiB more are needed beside 64.0 MiB that stay free, and 40.0 MiB are "
                        "available"));
  EXPECT_FALSE(IsHostShort(absl::OkStatus()));
  EXPECT_FALSE(IsHostShort(absl::ResourceExhaustedError("the disk is full")));
}

}  // namespace
}  // namespace switchyard
