#include "worker/device/residency.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/worker/device/fault_device.h"
#include "tests/worker/device/resident_memory.h"

namespace switchyard::worker {
namespace {

constexpr uint64_t kChunk = 16 << 10;
constexpr uint64_t kImage = 10 * kChunk + 100;  // the last chunk is short

class ResidencyTest : public testing::Test {
 protected:
  ResidencyTest() : device_(faults_), master_(kImage) {
    std::mt19937 random(7);
    for (std::byte& byte : master_) byte = static_cast<std::byte>(random());
    residency_ = *Residency::Create(device_, kImage, kChunk);
    residency_->SetSource(std::make_shared<MasterSource>(std::span(master_)));
  }

  void ExpectPrefix(uint64_t bytes) {
    // WaitFor returns when the copy has been launched; the copying thread says when it has arrived.
    while (!residency_->settled()) std::this_thread::yield();
    EXPECT_EQ(residency_->resident_bytes(), bytes);
    EXPECT_EQ(residency_->committed_bytes(), bytes);
    EXPECT_EQ(std::memcmp(residency_->base(), master_.data(), bytes), 0);
  }

  Faults faults_;
  FaultDevice device_;
  std::vector<std::byte> master_;
  std::unique_ptr<Residency> residency_;
};

TEST_F(ResidencyTest, GrowsInTheBackgroundAndShrinksAtOnce) {
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  ASSERT_TRUE(residency_->WaitFor(kImage, nullptr).ok());
  ExpectPrefix(kImage);
  EXPECT_TRUE(residency_->settled());
  ASSERT_TRUE(residency_->SetTarget(4 * kChunk + 5).ok());
  EXPECT_EQ(residency_->target_bytes(), 4 * kChunk);
  ExpectPrefix(4 * kChunk);
  EXPECT_EQ(faults_.committed(), 4 * kChunk);
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  ASSERT_TRUE(residency_->WaitFor(kImage, nullptr).ok());
  ExpectPrefix(kImage);
  ASSERT_TRUE(residency_->SetTarget(0).ok());
  EXPECT_EQ(faults_.committed(), 0u);
}

TEST_F(ResidencyTest, EarlyBytesArriveBeforeLateOnes) {
  faults_.HoldUploadsAfter(3);
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  ASSERT_TRUE(residency_->WaitFor(2 * kChunk + 1, nullptr).ok());
  EXPECT_FALSE(residency_->settled());
  EXPECT_LE(residency_->resident_bytes(), 3 * kChunk);
  faults_.LetUploadsPass();
  ASSERT_TRUE(residency_->WaitFor(kImage, nullptr).ok());
}

// While the driver clears what others gave back. The event of a chunk is behind both ways.
TEST_F(ResidencyTest, TheFirstFifthOfAGrowthGoesBothWays) {
  constexpr uint64_t kChunks = 24;
  const std::vector<std::byte> master(kChunks * kChunk, std::byte{3});
  const auto residency = *Residency::Create(device_, master.size(), kChunk);
  residency->SetSource(std::make_shared<MasterSource>(std::span(master)));
  faults_.records_streams = true;
  const auto grow = [&](uint64_t chunks) {
    ASSERT_TRUE(residency->SetTarget(chunks * kChunk).ok());
    ASSERT_TRUE(residency->WaitFor(chunks * kChunk, nullptr).ok());
    while (!residency->settled()) std::this_thread::yield();
    EXPECT_EQ(std::memcmp(residency->base(), master.data(), chunks * kChunk), 0);
  };
  const auto by_engine = [](int chunks) {
    std::string launched;
    while (chunks-- > 0) launched += "cC";
    return launched;
  };
  grow(kChunks);
  const std::string first = "rRCrRCrRCcCrRC" + by_engine(19);
  EXPECT_EQ(faults_.launched(), first);
  ASSERT_TRUE(residency->SetTarget(10 * kChunk).ok());
  grow(19);  // a growth begins where it is
  EXPECT_EQ(faults_.launched(), first + "rRCrRC" + by_engine(7));
}

TEST_F(ResidencyTest, BeyondTheTargetIsRefused) {
  ASSERT_TRUE(residency_->SetTarget(2 * kChunk).ok());
  EXPECT_EQ(residency_->WaitFor(2 * kChunk + 1, nullptr).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(residency_->WaitFor(2 * kChunk, nullptr).ok());
}

TEST_F(ResidencyTest, AFailedCommitRollsBackToTheCompletePrefix) {
  faults_.FailCommitsAfter(4);
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  const absl::Status status = residency_->WaitFor(kImage, nullptr);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  // What was on its way when it failed still arrives.
  ASSERT_TRUE(residency_->WaitFor(4 * kChunk, nullptr).ok());
  ExpectPrefix(4 * kChunk);
  EXPECT_EQ(residency_->error().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(faults_.committed(), 4 * kChunk);
  // The same target again tries again.
  faults_.Mend();
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  EXPECT_TRUE(residency_->WaitFor(kImage, nullptr).ok());
  ExpectPrefix(kImage);
}

TEST_F(ResidencyTest, WhatCannotBeGivenBackStaysChargedAndIsUsedAgain) {
  faults_.FailUploadsAfter(3);
  faults_.FailReleases(true);
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  EXPECT_FALSE(residency_->WaitFor(kImage, nullptr).ok());
  while (!residency_->settled()) std::this_thread::yield();
  EXPECT_EQ(residency_->resident_bytes(), 3 * kChunk);
  EXPECT_EQ(residency_->committed_bytes(), 4 * kChunk);
  EXPECT_EQ(faults_.committed(), 4 * kChunk);

  faults_.LetUploadsPass();
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  ASSERT_TRUE(residency_->WaitFor(kImage, nullptr).ok());
  ExpectPrefix(kImage);
  faults_.FailReleases(false);
  ASSERT_TRUE(residency_->SetTarget(0).ok());
  EXPECT_EQ(faults_.committed(), 0u);
}

TEST_F(ResidencyTest, GrowthIsCutShortByASmallerTarget) {
  faults_.HoldUploadsAfter(5);
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  ASSERT_TRUE(residency_->WaitFor(5 * kChunk, nullptr).ok());
  // The sixth chunk is being copied: shrinking waits for that piece and no more.
  std::thread shrink([&] { EXPECT_TRUE(residency_->SetTarget(2 * kChunk).ok()); });
  while (residency_->target_bytes() != 2 * kChunk) std::this_thread::yield();
  faults_.HoldUploadsAfter(1);
  shrink.join();
  ExpectPrefix(2 * kChunk);
  EXPECT_EQ(faults_.committed(), 2 * kChunk);
  EXPECT_TRUE(residency_->error().ok());
  faults_.LetUploadsPass();
}

TEST_F(ResidencyTest, AWaitCanBeInterrupted) {
  faults_.HoldUploadsAfter(1);
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  ASSERT_TRUE(residency_->WaitFor(kChunk, nullptr).ok());
  std::thread other([&] { residency_->Interrupt(); });
  EXPECT_TRUE(absl::IsCancelled(residency_->WaitFor(kImage, nullptr)));
  other.join();
  EXPECT_TRUE(residency_->WaitFor(kChunk, nullptr).ok());  // what is there is not waited for
  residency_->EndInterrupt();
  faults_.LetUploadsPass();
  EXPECT_TRUE(residency_->WaitFor(kImage, nullptr).ok());
}

TEST_F(ResidencyTest, NoMasterNoGrowth) {
  residency_->SetSource(nullptr);
  EXPECT_EQ(residency_->SetTarget(kImage).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(residency_->target_bytes(), 0u);
}

TEST_F(ResidencyTest, AMasterDroppedMidwayFailsTheGrowth) {
  faults_.HoldUploadsAfter(2);
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  ASSERT_TRUE(residency_->WaitFor(2 * kChunk, nullptr).ok());
  std::thread drop([&] { residency_->SetSource(nullptr); });
  faults_.LetUploadsPass();
  drop.join();
  const absl::Status status = residency_->WaitFor(kImage, nullptr);
  // The copying thread may have been faster than the drop, but only if it got to the end.
  if (!status.ok()) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  }
}

// ---- A master that is being filled

TEST_F(ResidencyTest, ChunksFollowAMasterThatIsBeingFilled) {
  auto filling = std::make_shared<MasterSource>(std::span(master_), 0);
  residency_->SetSource(filling);
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  filling->SetReady(kChunk - 1);
  EXPECT_EQ(residency_->resident_bytes(), 0u);
  EXPECT_FALSE(residency_->settled());
  filling->SetReady(3 * kChunk + 1);
  ASSERT_TRUE(residency_->WaitFor(3 * kChunk, nullptr).ok());
  EXPECT_FALSE(residency_->settled());
  EXPECT_LE(residency_->resident_bytes(), 3 * kChunk);
  filling->SetReady(kImage);
  ASSERT_TRUE(residency_->WaitFor(kImage, nullptr).ok());
  ExpectPrefix(kImage);
}

TEST_F(ResidencyTest, AWaitForBytesIsCutShortByASmallerTarget) {
  auto filling = std::make_shared<MasterSource>(std::span(master_), 2 * kChunk);
  residency_->SetSource(filling);
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  ASSERT_TRUE(residency_->WaitFor(2 * kChunk, nullptr).ok());
  ASSERT_TRUE(residency_->SetTarget(kChunk).ok());
  ExpectPrefix(kChunk);
  EXPECT_TRUE(residency_->error().ok());
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  residency_.reset();  // ends while it waits, too
  EXPECT_EQ(faults_.committed(), 0u);
}

// The cache proves damaged, and the master is filled from the checkpoint: nothing that was copied
// is copied again.
TEST_F(ResidencyTest, AGrowthGoesOnFromAnotherSource) {
  residency_->SetSource(std::make_shared<MasterSource>(std::span(master_), 4 * kChunk));
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  ASSERT_TRUE(residency_->WaitFor(4 * kChunk, nullptr).ok());
  auto again = std::make_shared<MasterSource>(std::span(master_), 0);
  residency_->SetSource(again);
  EXPECT_FALSE(residency_->settled());
  again->SetReady(kImage);
  ASSERT_TRUE(residency_->WaitFor(kImage, nullptr).ok());
  ExpectPrefix(kImage);
}

TEST_F(ResidencyTest, AFillingThatFailsFailsTheGrowthWithItsReason) {
  residency_->SetSource(std::make_shared<MasterSource>(std::span(master_), 2 * kChunk));
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  ASSERT_TRUE(residency_->WaitFor(2 * kChunk, nullptr).ok());
  residency_->SetSource(std::make_shared<MasterSource>(absl::DataLossError("truncated")));
  EXPECT_TRUE(absl::IsDataLoss(residency_->WaitFor(kImage, nullptr)));
  ExpectPrefix(2 * kChunk);
  // Also one that ends for a reason of its own.
  residency_->SetSource(std::make_shared<MasterSource>(absl::CancelledError("dropped")));
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  EXPECT_TRUE(absl::IsCancelled(residency_->WaitFor(kImage, nullptr)));
  ExpectPrefix(2 * kChunk);
}

TEST_F(ResidencyTest, TheObserverSeesEveryChunk) {
  std::atomic<int> calls = 0;
  residency_->SetObserver([&] { ++calls; });
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  ASSERT_TRUE(residency_->WaitFor(kImage, nullptr).ok());
  residency_.reset();
  EXPECT_GE(calls, 11);
}

TEST_F(ResidencyTest, DestructionEndsAGrowthAndGivesEverythingBack) {
  faults_.HoldUploadsAfter(3);
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  ASSERT_TRUE(residency_->WaitFor(3 * kChunk, nullptr).ok());
  faults_.LetUploadsPass();
  residency_.reset();
  EXPECT_EQ(faults_.committed(), 0u);
}

TEST_F(ResidencyTest, RandomTargetsEndWhereTheLastOneSays) {
  std::mt19937 random(11);
  for (int i = 0; i < 300; ++i) {
    const uint64_t target = random() % 5 == 0 ? kImage : random() % kImage;
    ASSERT_TRUE(residency_->SetTarget(target).ok());
    ASSERT_LE(residency_->resident_bytes(), residency_->target_bytes());
    if (random() % 3 != 0) continue;
    const uint64_t rounded = residency_->target_bytes();
    ASSERT_TRUE(residency_->WaitFor(rounded, nullptr).ok());
    ExpectPrefix(rounded);
    // The tail of a short last chunk is charged as whole pages by the arena alone.
    ASSERT_EQ(faults_.committed(), (rounded + kCpuPageBytes - 1) / kCpuPageBytes * kCpuPageBytes);
  }
}

TEST_F(ResidencyTest, ReleasedPagesAreGone) {
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  ASSERT_TRUE(residency_->WaitFor(kImage, nullptr).ok());
  EXPECT_GE(ResidentBytes(residency_->base(), kImage), kImage);
  ASSERT_TRUE(residency_->SetTarget(kChunk).ok());
  EXPECT_EQ(ResidentBytes(residency_->base(), kImage), kChunk);
}

TEST(Residency, ChunksAreWholePages) {
  auto device = MakeCpuDevice(1);
  EXPECT_EQ(Residency::Create(*device, 1 << 20, 1000).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace switchyard::worker
