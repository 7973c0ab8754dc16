#include "supervisor/host_share.h"

#include <gtest/gtest.h>

namespace switchyard::supervisor {
namespace {

constexpr uint64_t kMiB = 1 << 20;

TEST(HostShare, AnImageThatFitsHasAMaster) {
  EXPECT_EQ(HostShareOf(100 * kMiB, 100 * kMiB), (HostShare{100 * kMiB, false}));
  EXPECT_EQ(HostShareOf(0, 0), (HostShare{0, false}));
  EXPECT_EQ(HostShareOf(5 * kMiB, 6 * kMiB), (HostShare{5 * kMiB, false}));
}

TEST(HostShare, OneThatDoesNotIsStreamedThroughARing) {
  EXPECT_EQ(HostShareOf(101 * kMiB, 100 * kMiB), (HostShare{25 * kMiB, true}));
  EXPECT_EQ(HostShareOf(101 * kMiB, 16 * kMiB), (HostShare{4 * kMiB, true}));
  // Whole blocks, and no more than helps.
  EXPECT_EQ(HostShareOf(101 * kMiB, 31 * kMiB + 5), (HostShare{7 * kMiB, true}));
  EXPECT_EQ(HostShareOf(uint64_t{70} << 30, uint64_t{64} << 30), (HostShare{128 * kMiB, true}));
}

TEST(HostShare, ABudgetWithoutRoomForARingServesNoSuchModel) {
  EXPECT_EQ(LeastHostBudget(), 16 * kMiB);
  EXPECT_EQ(HostShareOf(101 * kMiB, LeastHostBudget() - 1), std::nullopt);
  EXPECT_EQ(HostShareOf(1, 0), std::nullopt);
}

}  // namespace
}  // namespace switchyard::supervisor
