// Files of the image cache under faults: whatever a read does, a block is right or refused.

#include "worker/model/image_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/checked.h"
#include "tests/worker/io/checkpoint_writer.h"
#include "worker/model/image_cache.h"
#include "worker/model/read_ahead.h"

namespace switchyard::worker {
namespace {

// What an unfriendly disk answers, by read.
struct Answers {
  std::function<int64_t(int64_t result)> change = [](int64_t result) { return result; };
  int reads = 0;
};

class FaultyReads final : public FileReads {
 public:
  FaultyReads(std::shared_ptr<Answers> answers, bool together)
      : answers_(std::move(answers)), together_(together) {}
  void Start(const Read& read) override { reads_->Start(read); }
  Ended Await() override {
    Ended ended = reads_->Await();
    ++answers_->reads;
    ended.result = answers_->change(ended.result);
    return ended;
  }
  bool together() const override { return together_; }

 private:
  std::shared_ptr<Answers> answers_;
  const bool together_;
  std::unique_ptr<FileReads> reads_ = MakePreads();
};

class ImageFileTest : public testing::Test {
 protected:
  ImageFileTest() {
    std::mt19937_64 random(3);
    for (std::byte& b : image_) b = static_cast<std::byte>(random());
    layout_.key = "k";
    layout_.bytes = image_.size();
    EXPECT_TRUE(WriteImageCache(dir_.path(), layout_, image_).ok());
    // So that direct reads are asked for, where the file system of the tests has them.
    const UniqueFd file(::open(path().c_str(), O_RDONLY | O_CLOEXEC));
    ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
    memory_ =
        static_cast<std::byte*>(::mmap(nullptr, image_.size() + kChecksumBlock,
                                       PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  }
  ~ImageFileTest() override { ::munmap(memory_, image_.size() + kChecksumBlock); }

  std::string path() { return dir_ / "k.image"; }
  MakeReads Faulty() {
    return [answers = answers_](size_t) { return std::make_unique<FaultyReads>(answers, false); };
  }
  // Reads one block after the other on this thread.
  absl::Status ReadAll(const ImageFile& file) {
    const auto reads = file.Open(1);
    for (uint64_t block = 0; block < file.blocks(); ++block) {
      reads->Start(block, memory_ + block * kChecksumBlock);
      const BlockReads::Done done = reads->Await();
      EXPECT_EQ(done.block, block);
      if (!done.status.ok()) return done.status;
    }
    EXPECT_EQ(std::memcmp(memory_, image_.data(), image_.size()), 0);
    return absl::OkStatus();
  }
  void Change(uint64_t at) {
    std::fstream file(path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(at));
    const char old = static_cast<char>(file.get());
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(old ^ 1));
  }

  TempDir dir_;
  ImageLayout layout_;
  std::vector<std::byte> image_ = std::vector<std::byte>(7 * kChecksumBlock + 12345);
  std::byte* memory_ = nullptr;
  std::shared_ptr<Answers> answers_ = std::make_shared<Answers>();
};

TEST_F(ImageFileTest, ShortReadsAreCompleted) {
  const auto file = ImageFile::Open(path(), layout_, Faulty());
  ASSERT_TRUE(file.ok()) << file.status();
  answers_->change = [](int64_t result) { return std::min<int64_t>(result, 5000); };
  EXPECT_TRUE(ReadAll(**file).ok());
  answers_->change = [](int64_t result) { return int64_t{0}; };
  EXPECT_TRUE(ReadAll(**file).ok());
}

TEST_F(ImageFileTest, AnErrorOfADirectReadIsTriedAgainThroughThePageCache) {
  const auto file = ImageFile::Open(path(), layout_, Faulty());
  ASSERT_TRUE(file.ok()) << file.status();
  answers_->change = [](int64_t) { return int64_t{-EIO}; };
  EXPECT_TRUE(ReadAll(**file).ok());
}

// A bad sector, as /proc/self/mem has one where nothing is mapped. The file can be made again.
TEST_F(ImageFileTest, WhatTheDiskCannotReadIsDamaged) {
  std::filesystem::remove(path());
  std::filesystem::create_symlink("/proc/self/mem", path());
  const absl::Status opened = ImageFile::Open(path(), layout_).status();
  EXPECT_EQ(opened, absl::DataLossError(absl::StrCat(path(), ": read at 0: Input/output error")));
  EXPECT_EQ(OpenImageCache(dir_.path(), layout_).status(),
            absl::DataLossError(absl::StrCat(opened.message(), "; removed")));
  EXPECT_FALSE(std::filesystem::exists(std::filesystem::symlink_status(path())));
}

TEST_F(ImageFileTest, ADamagedBlockIsRefusedAndNoOther) {
  const uint64_t offset = ImageFileOffset(layout_.bytes);
  Change(offset + 2 * kChecksumBlock + 77);
  const auto file = ImageFile::Open(path(), layout_);
  ASSERT_TRUE(file.ok()) << file.status();
  const auto reads = (*file)->Open(1);
  for (uint64_t block = 0; block < (*file)->blocks(); ++block) {
    reads->Start(block, memory_);
    const BlockReads::Done done = reads->Await();
    EXPECT_EQ(done.status, block == 2 ? absl::DataLossError(absl::StrCat(
                                            path(), ": block 2 of 8 is not what was written"))
                                      : absl::OkStatus());
  }
}

TEST_F(ImageFileTest, WhatStandsBeforeTheImageIsChecked) {
  const uint64_t header = 96;
  for (const uint64_t at : {uint64_t{3}, uint64_t{20}, uint64_t{81}, uint64_t{90}, header + 8}) {
    Change(at);
    EXPECT_TRUE(absl::IsDataLoss(ImageFile::Open(path(), layout_).status())) << at;
    Change(at);
  }
  EXPECT_TRUE(ImageFile::Open(path(), layout_).ok());
  for (const uint64_t bytes : {uint64_t{50}, header + 5, ImageFileOffset(layout_.bytes) + 1000}) {
    ASSERT_TRUE(WriteImageCache(dir_.path(), layout_, image_).ok());
    std::filesystem::resize_file(path(), bytes);
    EXPECT_TRUE(absl::IsDataLoss(ImageFile::Open(path(), layout_).status())) << bytes;
  }
  EXPECT_TRUE(absl::IsNotFound(ImageFile::Open(dir_ / "none.image", layout_).status()));
}

TEST_F(ImageFileTest, AFileThatBecomesShorterIsFoundOut) {
  const auto file = ImageFile::Open(path(), layout_);
  ASSERT_TRUE(file.ok()) << file.status();
  std::filesystem::resize_file(path(), ImageFileOffset(layout_.bytes) + 3 * kChecksumBlock + 5);
  EXPECT_TRUE(absl::IsDataLoss(ReadAll(**file)));
}

// ---- A ring

// Takes everything through a ring of `slots` blocks, in steps that vary.
void TakeAll(const ImageBlocks& blocks, uint64_t slots, uint64_t first,
             std::span<const std::byte> image) {
  std::vector<std::byte> ring(slots * kChecksumBlock);
  ReadAhead ahead(blocks, first, blocks.blocks(), ring);
  std::mt19937 random(static_cast<unsigned>(slots));
  uint64_t released = first;
  for (uint64_t block = first; block < blocks.blocks(); ++block) {
    const auto there = ahead.Await(block, [] { return true; });
    ASSERT_TRUE(there.ok()) << there.status();
    ASSERT_GT(*there, block);
    ASSERT_LE(*there, released + slots);
    ASSERT_EQ(std::memcmp(ahead.SlotOf(block), image.data() + block * kChecksumBlock,
                          blocks.BlockBytes(block)),
              0)
        << block;
    // Now and then some are kept for a while.
    if (random() % 3 == 0 || block + 1 - released == slots) {
      released = block + 1;
      ahead.Release(released);
    }
  }
}

TEST_F(ImageFileTest, ARingOfAnySizeBringsTheWholeImage) {
  for (const bool together : {true, false}) {
    const auto file = ImageFile::Open(path(), layout_, [&](size_t) {
      return std::make_unique<FaultyReads>(std::make_shared<Answers>(), together);
    });
    ASSERT_TRUE(file.ok()) << file.status();
    for (const uint64_t slots : {1, 2, 3, 5, 8, 40}) TakeAll(**file, slots, slots % 4, image_);
  }
  const auto file = ImageFile::Open(path(), layout_);
  ASSERT_TRUE(file.ok()) << file.status();
  TakeAll(**file, 4, 0, image_);
}

TEST_F(ImageFileTest, AReadThatFailsEndsTheWaitForItAndNoneBefore) {
  Change(ImageFileOffset(layout_.bytes) + 5 * kChecksumBlock);
  const auto file = ImageFile::Open(path(), layout_);
  ASSERT_TRUE(file.ok()) << file.status();
  std::vector<std::byte> ring(2 * kChecksumBlock);
  ReadAhead ahead(**file, 0, (*file)->blocks(), ring);
  for (uint64_t block = 0; block < 5; ++block) {
    ASSERT_TRUE(ahead.Await(block, [] { return true; }).ok()) << block;
    ahead.Release(block);
  }
  ahead.Release(5);
  EXPECT_TRUE(absl::IsDataLoss(ahead.Await(5, [] { return true; }).status()));
}

TEST_F(ImageFileTest, AWaitEndsWhenItIsNotWanted) {
  const auto file = ImageFile::Open(path(), layout_);
  ASSERT_TRUE(file.ok()) << file.status();
  std::vector<std::byte> ring(kChecksumBlock);
  ReadAhead ahead(**file, 0, (*file)->blocks(), ring);
  std::atomic<bool> wanted = true, asked = false;
  std::thread other([&] {
    while (!asked) std::this_thread::yield();
    wanted = false;
    ahead.Wake();
  });
  // The second block finds no room while the first is not released.
  const auto there = ahead.Await(1, [&] {
    asked = true;
    return wanted.load();
  });
  EXPECT_TRUE(absl::IsCancelled(there.status())) << there.status();
  other.join();
}

}  // namespace
}  // namespace switchyard::worker
