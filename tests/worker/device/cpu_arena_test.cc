#include "worker/device/cpu_arena.h"

#include <gtest/gtest.h>

#include <cstring>

#include "common/available_memory.h"
#include "tests/worker/device/resident_memory.h"

namespace switchyard::worker {
namespace {

constexpr uint64_t kMiB = 1 << 20;

TEST(CpuArena, ReservesAddressesOnly) {
  auto arena = CpuArena::Reserve(uint64_t{1} << 37);
  ASSERT_TRUE(arena.ok()) << arena.status();
  EXPECT_EQ(reinterpret_cast<uintptr_t>((*arena)->base()) % (2 * kMiB), 0u);
  EXPECT_EQ((*arena)->committed_bytes(), 0u);
  EXPECT_EQ(ResidentBytes((*arena)->base(), (*arena)->reserved_bytes()), 0u);
}

TEST(CpuArena, ReleaseGivesPagesBack) {
  auto arena = CpuArena::Reserve(64 * kMiB);
  ASSERT_TRUE(arena.ok());
  Arena& a = **arena;
  ASSERT_TRUE(a.Commit(0, 32 * kMiB).ok());
  std::memset(a.base(), 1, 32 * kMiB);
  EXPECT_GE(ResidentBytes(a.base(), 64 * kMiB), 32 * kMiB);
  ASSERT_TRUE(a.Release(8 * kMiB, 24 * kMiB).ok());
  EXPECT_EQ(a.committed_bytes(), 8 * kMiB);
  EXPECT_EQ(ResidentBytes(a.base(), 64 * kMiB), 8 * kMiB);
  EXPECT_EQ(a.base()[8 * kMiB - 1], std::byte{1});
}

TEST(CpuArena, PiecesInsideAHugePage) {
  auto arena = CpuArena::Reserve(4 * kMiB);
  ASSERT_TRUE(arena.ok());
  Arena& a = **arena;
  ASSERT_TRUE(a.Commit(0, 2 * kMiB).ok());
  std::memset(a.base(), 1, 2 * kMiB);
  ASSERT_TRUE(a.Release(4096, 8192).ok());
  EXPECT_EQ(ResidentBytes(a.base(), 4 * kMiB), 2 * kMiB - 8192);
  EXPECT_EQ(a.base()[4095], std::byte{1});
  EXPECT_EQ(a.base()[4096 + 8192], std::byte{1});
  // Committed again, they are new pages.
  ASSERT_TRUE(a.Commit(4096, 8192).ok());
  EXPECT_EQ(a.base()[4096], std::byte{0});
}

TEST(CpuArena, TouchingReleasedMemoryIsAFault) {
  auto arena = CpuArena::Reserve(4 * kMiB);
  ASSERT_TRUE(arena.ok());
  volatile std::byte* at = (*arena)->base();
  EXPECT_DEATH(*at = std::byte{1}, "");
}

TEST(CpuArena, WhatTheHostHasNotIsRefused) {
  const uint64_t beyond = *AvailableMemory() / kCpuPageBytes * kCpuPageBytes + (kMiB << 10);
  auto arena = CpuArena::Reserve(beyond);
  ASSERT_TRUE(arena.ok()) << arena.status();
  const absl::Status status = (*arena)->Commit(0, beyond);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_TRUE(IsHostShort(status)) << status;
  EXPECT_EQ((*arena)->committed_bytes(), 0u);
}

TEST(CpuArena, AHundredCyclesLeaveNothing) {
  auto arena = CpuArena::Reserve(16 * kMiB);
  ASSERT_TRUE(arena.ok());
  Arena& a = **arena;
  for (int i = 0; i < 100; ++i) {
    ASSERT_TRUE(a.Commit(0, 16 * kMiB).ok());
    std::memset(a.base(), i, 16 * kMiB);
    ASSERT_TRUE(a.Release(0, 16 * kMiB).ok());
  }
  EXPECT_EQ(a.committed_bytes(), 0u);
  EXPECT_EQ(ResidentBytes(a.base(), 16 * kMiB), 0u);
}

}  // namespace
}  // namespace switchyard::worker
