#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>

#include "common/unique_fd.h"
#include "tests/worker/io/checkpoint_writer.h"
#include "worker/model/image_cache.h"
#include "worker/model/write_behind.h"

namespace switchyard::worker {
namespace {

using testing::HasSubstr;

class ImageCacheTest : public testing::Test {
 protected:
  static ImageLayout Layout(const std::string& key, uint64_t bytes) {
    ImageLayout layout;
    layout.key = key;
    layout.bytes = bytes;
    return layout;
  }

  static std::vector<std::byte> Random(uint64_t bytes) {
    std::mt19937_64 random(bytes);
    std::vector<std::byte> image(bytes);
    for (std::byte& b : image) b = static_cast<std::byte>(random());
    return image;
  }

  void Damage(const std::string& name, std::streamoff at) {
    std::fstream file(dir_ / name, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const char old = static_cast<char>(file.get());
    file.seekp(at);
    file.put(static_cast<char>(old ^ 1));
  }

  uint64_t Bytes() {
    uint64_t bytes = 0;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.path())) {
      bytes += entry.file_size();
    }
    return bytes;
  }

  bool Exists(const std::string& name) { return std::filesystem::exists(dir_ / name); }

  TempDir dir_;
  const ImageLayout layout_ = Layout("k1", 20 << 20);
  const std::vector<std::byte> image_ = Random(20 << 20);
  std::vector<std::byte> read_ = std::vector<std::byte>(20 << 20);
};

TEST_F(ImageCacheTest, GivesBackWhatItWasGiven) {
  EXPECT_TRUE(absl::IsNotFound(ReadImageCache(dir_.path(), layout_, read_, nullptr).status()));
  ASSERT_TRUE(WriteImageCache(dir_ / "deeper", layout_, image_).ok());
  uint64_t last = 0;
  const auto checksum = ReadImageCache(dir_ / "deeper", layout_, read_, [&](uint64_t n) {
    EXPECT_GE(n, last);
    last = n;
    return true;
  });
  ASSERT_TRUE(checksum.ok()) << checksum.status();
  EXPECT_EQ(*checksum, ImageChecksum(image_));
  EXPECT_EQ(last, layout_.bytes);
  EXPECT_EQ(read_, image_);
}

// Around the page cache and through it: an aligned image whose last page is not whole, and one that
// starts anywhere.
TEST_F(ImageCacheTest, IsReadFromTheDiskAndFromThePageCache) {
  constexpr size_t kBytes = (17 << 20) + 12345;
  const std::vector<std::byte> image = Random(kBytes);
  const ImageLayout layout = Layout("k2", kBytes);
  ASSERT_TRUE(WriteImageCache(dir_.path(), layout, image).ok());
  const UniqueFd file(::open((dir_ / "k2.image").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(file.valid());
  std::vector<std::byte> memory(kBytes + 4096);
  void* page = memory.data();
  size_t room = memory.size();
  ASSERT_NE(std::align(4096, kBytes, page, room), nullptr);
  for (const bool cached : {false, true}) {
    for (std::byte* to : {static_cast<std::byte*>(page), memory.data() + 1}) {
      std::fill(memory.begin(), memory.end(), std::byte{0});
      // What the page cache holds is a matter of advice; both ways must give the same.
      ::posix_fadvise(file.get(), 0, 0, cached ? POSIX_FADV_WILLNEED : POSIX_FADV_DONTNEED);
      ASSERT_TRUE(ReadImageCache(dir_.path(), layout, {to, kBytes}, nullptr).ok());
      EXPECT_TRUE(std::equal(image.begin(), image.end(), to)) << cached;
    }
  }
}

TEST_F(ImageCacheTest, DamageIsFoundAndRemoved) {
  for (const std::streamoff at : {0, 20, 80, 4096, 10 << 20}) {
    ASSERT_TRUE(WriteImageCache(dir_.path(), layout_, image_).ok());
    Damage("k1.image", at);
    const auto read = ReadImageCache(dir_.path(), layout_, read_, [&](uint64_t n) {
      EXPECT_LT(n, layout_.bytes) << "all of it, before it was found to be bad";
      return true;
    });
    EXPECT_TRUE(absl::IsDataLoss(read.status())) << at;
    EXPECT_FALSE(Exists("k1.image")) << at;
  }
  ASSERT_TRUE(WriteImageCache(dir_.path(), layout_, image_).ok());
  std::filesystem::resize_file(dir_ / "k1.image", 10 << 20);
  EXPECT_TRUE(absl::IsDataLoss(ReadImageCache(dir_.path(), layout_, read_, nullptr).status()));
}

TEST_F(ImageCacheTest, CanBeCancelledWithoutHarm) {
  ASSERT_TRUE(WriteImageCache(dir_.path(), layout_, image_).ok());
  EXPECT_TRUE(absl::IsCancelled(
      ReadImageCache(dir_.path(), layout_, read_, [](uint64_t) { return false; }).status()));
  EXPECT_TRUE(Exists("k1.image"));
}

TEST_F(ImageCacheTest, WritingCanBeCancelledAndLeavesNothing) {
  const absl::Status status =
      WriteImageCache(dir_.path(), layout_, image_, kImageCacheBytes,
                      [](uint64_t bytes_done) { return bytes_done < (10u << 20); });
  EXPECT_TRUE(absl::IsCancelled(status)) << status;
  EXPECT_TRUE(std::filesystem::is_empty(dir_.path()));
}

TEST_F(ImageCacheTest, MakesRoomForNewOnesFromTheLongestUnused) {
  const std::vector<std::byte> small = Random(1 << 20);
  const uint64_t bound = 3 << 20;  // two of them with their headers
  ASSERT_TRUE(WriteImageCache(dir_.path(), Layout("a", 1 << 20), small, bound).ok());
  ASSERT_TRUE(WriteImageCache(dir_.path(), Layout("b", 1 << 20), small, bound).ok());
  const auto now = std::filesystem::file_time_type::clock::now();
  std::filesystem::last_write_time(dir_ / "a.image", now - std::chrono::hours(1));
  std::filesystem::last_write_time(dir_ / "b.image", now - std::chrono::minutes(1));
  ASSERT_TRUE(ReadImageCache(dir_.path(), Layout("a", 1 << 20), read_, nullptr).ok());
  ASSERT_TRUE(WriteImageCache(dir_.path(), Layout("c", 1 << 20), small, bound).ok());
  EXPECT_TRUE(Exists("a.image"));  // used just now
  EXPECT_FALSE(Exists("b.image"));
  EXPECT_TRUE(Exists("c.image"));
  EXPECT_TRUE(absl::IsResourceExhausted(
      WriteImageCache(dir_.path(), Layout("d", 20 << 20), image_, bound)));
  EXPECT_TRUE(Exists("a.image"));
}

// What a writer has taken counts whole from its beginning, and nobody takes it from it.
TEST_F(ImageCacheTest, WritersTogetherStayWithinTheBound) {
  const std::vector<std::byte> small = Random(1 << 20);
  const ImageLayout other = Layout("other", 1 << 20);
  for (const uint64_t bound : {22 << 20, 21 << 20}) {  // for both with their headers, and not
    absl::Status beside;
    bool begun = false;
    const absl::Status status = WriteImageCache(dir_.path(), layout_, image_, bound, [&](uint64_t) {
      if (!std::exchange(begun, true)) {
        beside = WriteImageCache(dir_.path(), other, small, bound);
      }
      EXPECT_LE(Bytes(), bound);
      return true;
    });
    EXPECT_EQ(status, absl::OkStatus());
    EXPECT_TRUE(Exists("k1.image"));
    EXPECT_EQ(beside.ok(), bound == 22 << 20) << beside;
    EXPECT_EQ(Exists("other.image"), beside.ok());
    if (!beside.ok()) {
      EXPECT_TRUE(absl::IsResourceExhausted(beside));
      EXPECT_THAT(std::string(beside.message()), HasSubstr("are being written"));
    }
    std::filesystem::remove(dir_ / "k1.image");
    std::filesystem::remove(dir_ / "other.image");
  }
}

// It cannot do without; who ends last makes room.
TEST_F(ImageCacheTest, WhatIsBuiltWhileAnotherIsWrittenMakesTheCacheTooLargeForThatLongOnly) {
  WriteText(dir_ / "config.json", "{}");
  WriteSafetensors(dir_ / "model.safetensors", {{"t", "F32", {1}, std::string(4, 'x')}});
  const auto checkpoint = Checkpoint::Open(dir_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const std::string cache = dir_ / "cache";
  const uint64_t bound = 21 << 20;
  bool begun = false;
  const absl::Status status = WriteImageCache(cache, layout_, image_, bound, [&](uint64_t) {
    if (std::exchange(begun, true)) return true;
    EXPECT_EQ(BuildImageCache(cache, Layout("built", 1 << 20), *checkpoint, bound, nullptr),
              absl::OkStatus());
    EXPECT_TRUE(Exists("cache/built.image"));
    return true;
  });
  EXPECT_EQ(status, absl::OkStatus());
  EXPECT_TRUE(Exists("cache/k1.image"));
  EXPECT_FALSE(Exists("cache/built.image"));
}

// The lock is what tells a writer that lives, however long it takes.
TEST_F(ImageCacheTest, LeftOversOfDeadWritersGoAtOnce) {
  WriteText(dir_ / "dead.image.123.partial", "half");
  WriteText(dir_ / "alive.image.124.partial", "half");
  std::filesystem::last_write_time(
      dir_ / "alive.image.124.partial",
      std::filesystem::file_time_type::clock::now() - std::chrono::hours(2));
  const UniqueFd writer(::open((dir_ / "alive.image.124.partial").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::flock(writer.get(), LOCK_EX), 0);
  ASSERT_TRUE(WriteImageCache(dir_.path(), layout_, image_).ok());
  EXPECT_FALSE(Exists("dead.image.123.partial"));
  EXPECT_TRUE(Exists("alive.image.124.partial"));
}

TEST_F(ImageCacheTest, AFileThatIsBeingWrittenIsAsLargeAsItWillBe) {
  const absl::Status status =
      WriteImageCache(dir_.path(), layout_, image_, kImageCacheBytes, [&](uint64_t) {
        EXPECT_GE(Bytes(), image_.size());
        return true;
      });
  EXPECT_EQ(status, absl::OkStatus());
}

// Bytes of the file that the page cache holds, or nothing where the kernel does not tell.
std::optional<uint64_t> Cached(const std::string& path) {
  struct {
    uint64_t offset = 0, length = 0;  // all of it
  } range;
  struct {
    uint64_t cached = 0, dirty = 0, writeback = 0, evicted = 0, recently = 0;
  } pages;
  constexpr long kCachestat = 451;
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid() || ::syscall(kCachestat, fd.get(), &range, &pages, 0) != 0) return std::nullopt;
  return pages.cached * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
}

bool OnDisk(const std::string& dir) {
  struct statfs fs = {};
  return ::statfs(dir.c_str(), &fs) == 0 && fs.f_type != TMPFS_MAGIC;
}

// Else the flush in the end would take as long as all of the image, and nothing cuts that short.
TEST_F(ImageCacheTest, IsWrittenBackOnTheWay) {
  constexpr uint64_t kBytes = uint64_t{168} << 20;
  const std::vector<std::byte> large(kBytes);
  const std::string partial = dir_ / ("k2.image." + std::to_string(::getpid()) + ".partial");
  std::optional<uint64_t> most = 0;
  ASSERT_TRUE(
      WriteImageCache(dir_.path(), Layout("k2", kBytes), large, kImageCacheBytes, [&](uint64_t) {
        most = std::max(most, Cached(partial));
        return true;
      }).ok());
  const std::optional<uint64_t> left = Cached(dir_ / "k2.image");
  if (!left || !OnDisk(dir_.path())) GTEST_SKIP() << "nobody tells what is in the page cache";
  EXPECT_LT(*most, uint64_t{144} << 20);
  EXPECT_LT(*left, uint64_t{8} << 20);
}

TEST(WriteBehindTest, WaitsForThePieceBeforeTheLast) {
  TempDir dir;
  const UniqueFd fd(::open((dir / "f").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_EQ(::ftruncate(fd.get(), 10000), 0);
  WriteBehind behind(fd.get(), 1000);
  for (const auto& [end, settled] : {std::pair{999, 0},
                                     {1000, 0},
                                     {1999, 0},
                                     {2000, 1000},
                                     {2100, 1000},
                                     {5500, 4000},
                                     {10000, 9000}}) {
    ASSERT_TRUE(behind.Advance(static_cast<uint64_t>(end)).ok());
    EXPECT_EQ(behind.settled(), static_cast<uint64_t>(settled)) << end;
  }
}

TEST(WriteBehindTest, WhatCannotBeWrittenBackThatWayIsNoError) {
  auto pipe = Pipe();
  ASSERT_TRUE(pipe.ok());
  EXPECT_EQ(WriteBehind(pipe->second.get(), 1000).Advance(5000), absl::OkStatus());
}

TEST(WriteBehindTest, AnErrorOfTheDiskIsTold) {
  EXPECT_FALSE(WriteBehind(-1, 1000).Advance(5000).ok());
}

}  // namespace
}  // namespace switchyard::worker
