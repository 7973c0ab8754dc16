// Weights that are read through a ring on their way to the device.

#include "worker/model/streamed_source.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "tests/worker/device/fault_device.h"
#include "worker/device/residency.h"

namespace switchyard::worker {
namespace {

constexpr uint64_t kChunk = 3 * kChecksumBlock / 2;  // chunks begin anywhere in a block
constexpr uint64_t kImage = 11 * kChecksumBlock + 4096 * 5;

// An image on a disk that can be damaged, and made to hang.
class FakeBlocks final : public ImageBlocks {
 public:
  explicit FakeBlocks(const std::vector<std::byte>& image) : image_(image) {}

  class Reads final : public BlockReads {
   public:
    explicit Reads(const FakeBlocks& blocks) : blocks_(blocks) {}
    void Start(uint64_t block, std::byte* to) override { started_.emplace_back(block, to); }
    Done Await() override {
      const auto [block, to] = started_.front();
      started_.pop_front();
      ++blocks_.reads;
      while (blocks_.held == static_cast<int64_t>(block)) std::this_thread::yield();
      if (blocks_.damaged == static_cast<int64_t>(block)) {
        return {block, absl::DataLossError("block damaged")};
      }
      std::memcpy(to, blocks_.image_.data() + block * kChecksumBlock, blocks_.BlockBytes(block));
      return {block, absl::OkStatus()};
    }

   private:
    const FakeBlocks& blocks_;
    std::deque<std::pair<uint64_t, std::byte*>> started_;
  };

  std::unique_ptr<BlockReads> Open(size_t) const override { return std::make_unique<Reads>(*this); }
  bool together() const override { return false; }
  uint64_t bytes() const override { return image_.size(); }

  std::atomic<int64_t> damaged = -1, held = -1;
  mutable std::atomic<int> reads = 0;

 private:
  const std::vector<std::byte>& image_;
};

class StreamedSourceTest : public testing::TestWithParam<uint64_t> {
 protected:
  StreamedSourceTest() : device_(faults_), ring_(GetParam() * kChecksumBlock + 100) {
    std::mt19937_64 random(5);
    for (std::byte& byte : image_) byte = static_cast<std::byte>(random());
    disk_ = std::make_shared<FakeBlocks>(image_);
    residency_ = *Residency::Create(device_, kImage, kChunk);
    residency_->SetSource(std::make_shared<StreamedSource>(
        disk_, ring_,
        [this](const std::function<bool()>&) -> absl::StatusOr<std::shared_ptr<const ImageBlocks>> {
          ++reopened_;
          if (!mended_.ok()) return mended_;
          return std::make_shared<FakeBlocks>(image_);
        }));
  }
  void ExpectPrefix(uint64_t bytes) {
    while (!residency_->settled()) std::this_thread::yield();
    EXPECT_EQ(residency_->resident_bytes(), bytes);
    EXPECT_EQ(std::memcmp(residency_->base(), image_.data(), bytes), 0);
  }

  std::vector<std::byte> image_ = std::vector<std::byte>(kImage);
  Faults faults_;
  FaultDevice device_;
  std::vector<std::byte> ring_;
  std::shared_ptr<FakeBlocks> disk_;
  absl::Status mended_;
  std::atomic<int> reopened_ = 0;
  std::unique_ptr<Residency> residency_;
};

TEST_P(StreamedSourceTest, EveryGrowthReadsWhatIsMissing) {
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  ASSERT_TRUE(residency_->WaitFor(kImage, nullptr).ok());
  ExpectPrefix(kImage);
  EXPECT_EQ(disk_->reads, 12);
  ASSERT_TRUE(residency_->SetTarget(5 * kChunk).ok());
  ExpectPrefix(5 * kChunk);
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  ASSERT_TRUE(residency_->WaitFor(kImage, nullptr).ok());
  ExpectPrefix(kImage);
  EXPECT_EQ(disk_->reads, 12 + 5);  // from the block in which the sixth chunk begins
}

TEST_P(StreamedSourceTest, RandomTargetsEndWhereTheLastOneSays) {
  std::mt19937 random(11);
  for (int i = 0; i < 60; ++i) {
    ASSERT_TRUE(residency_->SetTarget(random() % 4 == 0 ? kImage : random() % kImage).ok());
    if (random() % 2 != 0) continue;
    const uint64_t target = residency_->target_bytes();
    ASSERT_TRUE(residency_->WaitFor(target, nullptr).ok());
    ExpectPrefix(target);
  }
}

TEST_P(StreamedSourceTest, AWaitForTheDiskIsCutShort) {
  disk_->held = 6;
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  ASSERT_TRUE(residency_->WaitFor(3 * kChunk, nullptr).ok());
  std::thread shrink([&] { EXPECT_TRUE(residency_->SetTarget(kChunk).ok()); });
  while (residency_->target_bytes() != kChunk) std::this_thread::yield();
  disk_->held = -1;  // a read that was started is waited for, and no other
  shrink.join();
  ExpectPrefix(kChunk);
  EXPECT_TRUE(residency_->error().ok());
}

TEST_P(StreamedSourceTest, ADamagedBlockIsReadAnewOnce) {
  disk_->damaged = 7;
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  ASSERT_TRUE(residency_->WaitFor(kImage, nullptr).ok());
  ExpectPrefix(kImage);
  EXPECT_EQ(reopened_, 1);
}

TEST_P(StreamedSourceTest, WhatCannotBeMendedFailsTheGrowthAndTheNextOneTriesAgain) {
  disk_->damaged = 7;
  mended_ = absl::ResourceExhaustedError("no room to make it again");
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(residency_->WaitFor(kImage, nullptr)));
  ExpectPrefix(7 * kChecksumBlock / kChunk * kChunk);
  mended_ = absl::OkStatus();
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  ASSERT_TRUE(residency_->WaitFor(kImage, nullptr).ok());
  ExpectPrefix(kImage);
  EXPECT_EQ(reopened_, 2);
}

TEST_P(StreamedSourceTest, DroppedMidway) {
  faults_.HoldUploadsAfter(4);
  ASSERT_TRUE(residency_->SetTarget(kImage).ok());
  std::thread drop([&] { residency_->SetSource(nullptr); });
  faults_.LetUploadsPass();
  drop.join();
  const absl::Status status = residency_->WaitFor(kImage, nullptr);
  // Unless copying was faster than the drop.
  if (!status.ok()) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  }
}

INSTANTIATE_TEST_SUITE_P(Rings, StreamedSourceTest, testing::Values(2, 4, 7, 64));

}  // namespace
}  // namespace switchyard::worker
