#include "supervisor/request_memory.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "supervisor/retry_after.h"

namespace switchyard::supervisor {
namespace {

constexpr uint64_t kMiB = 1 << 20;

TEST(RequestMemory, IsGivenBackAtTheEndOrBefore) {
  auto memory = std::make_shared<RequestMemory>(8 * kMiB);
  {
    RequestMemory::Charge one(memory), two(memory);
    EXPECT_TRUE(one.Resize(2 * kMiB).ok());
    EXPECT_TRUE(two.Resize(3 * kMiB).ok());
    EXPECT_TRUE(one.Resize(kMiB).ok());
    EXPECT_EQ(memory->used(), 4 * kMiB);
    two.Release();
    EXPECT_EQ(memory->used(), kMiB);
  }
  EXPECT_EQ(memory->used(), 0u);
}

TEST(RequestMemory, WhatHasNoRoomIsToldToComeLaterAndKeepsWhatItHas) {
  auto memory = std::make_shared<RequestMemory>(8 * kMiB);
  RequestMemory::Charge one(memory), two(memory);
  ASSERT_TRUE(one.Resize(5 * kMiB).ok());
  ASSERT_TRUE(two.Resize(kMiB).ok());
  const absl::Status refused = two.Resize(2 * kMiB);
  EXPECT_TRUE(absl::IsResourceExhausted(refused));
  EXPECT_GT(RetryAfter(refused), 0);
  EXPECT_EQ(memory->used(), 6 * kMiB);
}

TEST(RequestMemory, WhatNeverHasRoomIsNotToldToComeLater) {
  RequestMemory::Charge one(std::make_shared<RequestMemory>(8 * kMiB));
  const absl::Status refused = one.Resize(7 * kMiB);
  EXPECT_TRUE(absl::IsResourceExhausted(refused));
  EXPECT_EQ(RetryAfter(refused), 0);
  EXPECT_EQ(refused.message(),
            "this request takes 7.00 MiB of memory; all that take more than 64.0 KiB may have 6.00 "
            "MiB together, of the 8.00 MiB of --request-memory: send less, or start the supervisor "
            "with more");
}

TEST(RequestMemory, WhoComesTooSoonIsToldOfTheOption) {
  auto memory = std::make_shared<RequestMemory>(8 * kMiB);
  RequestMemory::Charge first(memory), second(memory);
  ASSERT_TRUE(first.Resize(6 * kMiB - 4096).ok());
  EXPECT_EQ(
      second.Resize(kMiB).message(),
      "this request takes 1.00 MiB of memory; requests that wait have taken 5.996 MiB of the "
      "6.000 MiB that --request-memory leaves for those of more than 64.0 KiB: try again later");
}

TEST(RequestMemory, LargeRequestsLeaveRoomForSmallOnes) {
  auto memory = std::make_shared<RequestMemory>(8 * kMiB);
  RequestMemory::Charge large(memory), small(memory);
  ASSERT_TRUE(large.Resize(6 * kMiB).ok());
  EXPECT_FALSE(large.Resize(6 * kMiB + 1).ok());
  EXPECT_TRUE(small.Resize(RequestMemory::kSmall).ok());
  EXPECT_FALSE(small.Resize(RequestMemory::kSmall + 1).ok());
}

}  // namespace
}  // namespace switchyard::supervisor
