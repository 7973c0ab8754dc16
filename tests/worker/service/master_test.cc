#include "worker/master.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "tests/worker/service/support.h"
#include "worker/device/residency.h"
#include "worker/model/image_cache.h"

namespace switchyard::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

UniqueFd Memfd(uint64_t bytes) {
  UniqueFd fd(::memfd_create("master_test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  EXPECT_TRUE(fd.valid());
  EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(bytes)), 0);
  return fd;
}

// The permissions ("r--s") of the mapping that holds `address`.
std::string PermissionsAt(const void* address) {
  std::ifstream maps("/proc/self/maps");
  std::string line;
  while (std::getline(maps, line)) {
    unsigned long begin = 0, end = 0;
    char permissions[5] = {};
    std::sscanf(line.c_str(), "%lx-%lx %4s", &begin, &end, permissions);
    const auto at = reinterpret_cast<unsigned long>(address);
    if (begin <= at && at < end) return permissions;
  }
  return "none";
}

ino_t InodeOf(const std::string& path) {
  struct stat st = {};
  EXPECT_EQ(::stat(path.c_str(), &st), 0);
  return st.st_ino;
}

class MasterTest : public ::testing::Test {
 protected:
  MasterTest() : model_(OpenGolden(GoldenEntry("gpt_oss_published"))), device_(MakeCpuDevice(1)) {
    auto sockets = SocketPair();
    EXPECT_TRUE(sockets.ok());
    supervisor_ = std::move(sockets->first);
    descriptors_ = std::make_unique<Descriptors>(std::move(sockets->second));
    master_ = std::make_unique<Master>(
        Master::Parts{.image = model_->image,
                      .checkpoint = model_->checkpoint,
                      .cache_dir = cache_.path(),
                      .device = *device_,
                      .descriptors = *descriptors_,
                      .outbox = outbox_,
                      .set_source =
                          [this](const std::shared_ptr<WeightSource>& source) {
                            auto* master = dynamic_cast<MasterSource*>(source.get());
                            mapped_ = master == nullptr ? nullptr : master->master().data();
                            source_ = source;
                          },
                      .host_has = [this](uint64_t bytes) { return HostHas(bytes); },
                      .host_slice = 1});
  }

  // Looks that the host has memory for; then it is short of it.
  absl::Status HostHas(uint64_t bytes) {
    asked_.push_back(bytes);
    return asked_.size() <= looks_ ? absl::OkStatus() : CheckHostHas(bytes, 40 << 20);
  }
  // As told for want of the host's memory; the worker keeps nothing of it.
  void ExpectShort(const v1::MasterStatus& status, int fd) {
    EXPECT_EQ(status.state(), v1::MasterStatus::FAILED);
    EXPECT_EQ(status.code(), static_cast<int>(absl::StatusCode::kResourceExhausted));
    EXPECT_THAT(status.error(), HasSubstr("the host is short of memory"));
    EXPECT_TRUE(status.host_short());
    EXPECT_EQ(mapped_, nullptr);
    EXPECT_EQ(::fcntl(fd, F_GET_SEALS), 0);
  }

  void Use(uint64_t id, int fd, bool complete) {
    ASSERT_TRUE(SendFd(supervisor_.get(), fd, id).ok());
    struct stat st = {};
    ASSERT_EQ(::fstat(fd, &st), 0);
    v1::UseMaster use;
    use.set_master_id(id);
    use.set_bytes(static_cast<uint64_t>(st.st_size));
    use.set_complete(complete);
    master_->Use(use);
  }
  void UseRing(uint64_t id, int fd) {
    ASSERT_TRUE(SendFd(supervisor_.get(), fd, id).ok());
    struct stat st = {};
    ASSERT_EQ(::fstat(fd, &st), 0);
    v1::UseMaster use;
    use.set_master_id(id);
    use.set_bytes(static_cast<uint64_t>(st.st_size));
    use.set_streamed(true);
    master_->Use(use);
  }
  // What is copied to the device is what filling makes.
  void ExpectStreamed() {
    const uint64_t bytes = model_->image.bytes;
    std::vector<std::byte> expected(bytes);
    ASSERT_TRUE(FillImage(model_->image, model_->checkpoint, expected, nullptr).ok());
    auto residency = Residency::Create(*device_, bytes, kCpuPageBytes * 4);
    ASSERT_TRUE(residency.ok());
    (*residency)->SetSource(source_);
    ASSERT_TRUE((*residency)->SetTarget(bytes).ok());
    const absl::Status grown = (*residency)->WaitFor(bytes, nullptr);
    ASSERT_TRUE(grown.ok()) << grown;
    EXPECT_EQ(std::memcmp((*residency)->base(), expected.data(), bytes), 0);
  }
  v1::MasterStatus Answer() {
    return outbox_
        .WaitFor([](const v1::FromWorker& message) {
          return message.master().state() != v1::MasterStatus::FILLING;
        })
        .master();
  }

  size_t looks_ = SIZE_MAX;
  std::vector<uint64_t> asked_;
  std::unique_ptr<const OpenedModel> model_;
  std::unique_ptr<Device> device_;
  TempDir cache_;
  UniqueFd supervisor_;
  std::unique_ptr<Descriptors> descriptors_;
  TestOutbox outbox_;
  std::shared_ptr<WeightSource> source_;
  const std::byte* mapped_ = nullptr;
  std::unique_ptr<Master> master_;
};

TEST_F(MasterTest, FillsSealsAndMapsReadOnly) {
  UniqueFd fd = Memfd(model_->image.bytes);
  Use(1, fd.get(), false);
  const v1::MasterStatus status = Answer();
  ASSERT_EQ(status.state(), v1::MasterStatus::COMPLETE) << status.error();
  EXPECT_EQ(status.master_id(), 1u);
  EXPECT_EQ(status.bytes_done(), model_->image.bytes);
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  EXPECT_TRUE(seals & F_SEAL_SHRINK);
  EXPECT_TRUE(seals & F_SEAL_GROW);
  // Nobody can write any more, in any way.
  const char byte = 0;
  EXPECT_LT(::pwrite(fd.get(), &byte, 1, 0), 0);
  void* writable = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  EXPECT_EQ(writable, MAP_FAILED);
  EXPECT_NE(::ftruncate(fd.get(), 0), 0);
  EXPECT_EQ(PermissionsAt(mapped_), "r--s");
  EXPECT_EQ(status.checksum(), ImageChecksum({mapped_, model_->image.bytes}));
}

// All of it before the first byte; nothing has been touched then.
TEST_F(MasterTest, WhatTheHostHasNoMemoryForIsNotBegun) {
  looks_ = 0;
  UniqueFd fd = Memfd(model_->image.bytes);
  Use(1, fd.get(), false);
  ExpectShort(Answer(), fd.get());
  EXPECT_THAT(asked_, ElementsAre(model_->image.bytes));
  struct stat st = {};
  ASSERT_EQ(::fstat(fd.get(), &st), 0);
  EXPECT_EQ(st.st_blocks, 0);
  looks_ = SIZE_MAX;  // and then as if nothing had been
  Use(2, fd.get(), false);
  EXPECT_EQ(Answer().state(), v1::MasterStatus::COMPLETE);
}

// From the checkpoint and from the cache, which is not given up for that. A page that is never
// filled is never there.
TEST_F(MasterTest, WhenTheHostRunsOutOfMemoryAFillingEnds) {
  ASSERT_TRUE(model_->image.took_work);
  for (const bool cached : {false, true}) {
    asked_.clear();
    looks_ = 1;
    UniqueFd fd = Memfd(model_->image.bytes + 4096);
    Use(1, fd.get(), false);
    ExpectShort(Answer(), fd.get());
    ASSERT_EQ(asked_.size(), 2u) << "and no more is asked for";
    EXPECT_EQ(asked_[0], model_->image.bytes + 4096);
    EXPECT_LT(asked_[1], asked_[0]) << "what is there is not needed again";
    EXPECT_EQ(std::filesystem::is_empty(cache_.path()), !cached);
    looks_ = SIZE_MAX;
    Use(2, fd.get(), false);
    ASSERT_EQ(Answer().state(), v1::MasterStatus::COMPLETE);
    Use(3, fd.get(), true);  // behind the writing of the cache
    ASSERT_EQ(Answer().state(), v1::MasterStatus::COMPLETE);
  }
}

TEST_F(MasterTest, ARingIsMemoryOfTheHostToo) {
  looks_ = 0;
  UniqueFd ring = Memfd(4 << 20);
  UseRing(1, ring.get());
  ExpectShort(Answer(), ring.get());
  EXPECT_THAT(asked_, ElementsAre(4u << 20));
}

TEST(HostRoomTest, LooksOnceASlice) {
  UniqueFd fd = Memfd(100);
  int looks = 0;
  const auto has = [&](uint64_t) {
    ++looks;
    return absl::OkStatus();
  };
  HostRoom room(fd.get(), 100, has, 10);
  for (const auto& [filled, expected] : {std::pair{0, 1}, {5, 1}, {10, 2}, {19, 2}, {45, 3}}) {
    EXPECT_EQ(room.Look(static_cast<uint64_t>(filled)), absl::OkStatus());
    EXPECT_EQ(looks, expected) << filled;
  }
}

TEST(HostRoomTest, WhatIsAllThereNeedsNothing) {
  UniqueFd fd = Memfd(4096);
  ASSERT_EQ(::pwrite(fd.get(), "x", 1, 0), 1);
  HostRoom room(fd.get(), 4096, [](uint64_t) { return HostShort("short"); });
  EXPECT_EQ(room.Look(4096), absl::OkStatus());
}

TEST_F(MasterTest, CompleteIsOnlyMapped) {
  UniqueFd fd = Memfd(model_->image.bytes);
  Use(1, fd.get(), false);
  const uint64_t checksum = Answer().checksum();
  Use(2, fd.get(), true);
  const v1::MasterStatus status = Answer();
  ASSERT_EQ(status.state(), v1::MasterStatus::COMPLETE) << status.error();
  EXPECT_EQ(checksum, ImageChecksum({mapped_, model_->image.bytes}));
  EXPECT_EQ(PermissionsAt(mapped_), "r--s");
}

TEST_F(MasterTest, DropUnmaps) {
  UniqueFd fd = Memfd(model_->image.bytes);
  Use(1, fd.get(), false);
  Answer();
  const std::byte* was = mapped_;
  v1::DropMaster drop;
  drop.set_master_id(1);
  master_->Drop(drop);
  EXPECT_EQ(Answer().state(), v1::MasterStatus::DROPPED);
  EXPECT_EQ(mapped_, nullptr);
  EXPECT_NE(PermissionsAt(was), "r--s");
}

TEST_F(MasterTest, SecondFillingComesFromTheCache) {
  if (!model_->image.took_work) GTEST_SKIP() << "this image is a plain copy";
  UniqueFd first = Memfd(model_->image.bytes);
  Use(1, first.get(), false);
  const v1::MasterStatus filled = Answer();
  ASSERT_EQ(filled.state(), v1::MasterStatus::COMPLETE) << filled.error();
  // Behind the writing of the cache, on the same thread; a drop would cut that short.
  Use(2, first.get(), true);
  ASSERT_EQ(Answer().state(), v1::MasterStatus::COMPLETE);
  const std::string cached = cache_.path() + "/" + model_->image.key + ".image";
  ASSERT_TRUE(std::filesystem::exists(cached));
  // Reading it marks it as used; filling from the checkpoint would write another file.
  const auto long_ago = std::filesystem::file_time_type::clock::now() - std::chrono::hours(9);
  std::filesystem::last_write_time(cached, long_ago);
  const ino_t file = InodeOf(cached);
  UniqueFd second = Memfd(model_->image.bytes);
  Use(3, second.get(), false);
  EXPECT_EQ(Answer().checksum(), filled.checksum());
  EXPECT_GT(std::filesystem::last_write_time(cached), long_ago + std::chrono::hours(1));
  EXPECT_EQ(InodeOf(cached), file);
  // A damaged one is noticed, and the checkpoint is read instead.
  {
    std::fstream file(cached, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(std::filesystem::file_size(cached) / 2));
    file.put('\x5a').put('\x5a').put('\x5a');
  }
  UniqueFd third = Memfd(model_->image.bytes);
  Use(4, third.get(), false);
  const v1::MasterStatus again = Answer();
  EXPECT_EQ(again.state(), v1::MasterStatus::COMPLETE) << again.error();
  EXPECT_EQ(again.checksum(), filled.checksum());
}

// ---- Streamed: the memfd is a ring.

TEST_F(MasterTest, ARingStandsInForAMasterAndItsImageIsMadeInTheCache) {
  ASSERT_TRUE(model_->image.took_work);
  UniqueFd ring = Memfd(4 << 20);
  UseRing(1, ring.get());
  ASSERT_EQ(Answer().state(), v1::MasterStatus::COMPLETE);
  ExpectStreamed();
  const std::string cached = cache_.path() + "/" + model_->image.key + ".image";
  const ino_t file = InodeOf(cached);
  // As after a restart of the worker: what is there is used.
  UseRing(2, ring.get());
  ASSERT_EQ(Answer().state(), v1::MasterStatus::COMPLETE);
  EXPECT_EQ(InodeOf(cached), file);
  ExpectStreamed();
  // Damage is found when it is read, and mended on the way.
  {
    std::fstream damaged(cached, std::ios::in | std::ios::out | std::ios::binary);
    damaged.seekp(static_cast<std::streamoff>(std::filesystem::file_size(cached) / 2));
    damaged.put('\x5a').put('\x5a').put('\x5a');
  }
  ExpectStreamed();
  EXPECT_EQ(Answer().state(), v1::MasterStatus::COMPLETE) << "made again";
  std::vector<std::byte> again(model_->image.bytes);
  EXPECT_TRUE(ReadImageCache(cache_.path(), model_->image, again, nullptr).ok());
  v1::DropMaster drop;
  drop.set_master_id(2);
  master_->Drop(drop);
  EXPECT_EQ(Answer().state(), v1::MasterStatus::DROPPED);
  EXPECT_EQ(source_, nullptr);
}

TEST_F(MasterTest, ARingThatIsTooSmallIsRefused) {
  UniqueFd ring = Memfd(1 << 20);
  UseRing(1, ring.get());
  const v1::MasterStatus status = Answer();
  EXPECT_EQ(status.state(), v1::MasterStatus::FAILED);
  EXPECT_THAT(status.error(), HasSubstr("too small"));
}

TEST_F(MasterTest, TooSmallIsRefused) {
  UniqueFd fd = Memfd(model_->image.bytes - 1);
  Use(1, fd.get(), false);
  const v1::MasterStatus status = Answer();
  EXPECT_EQ(status.state(), v1::MasterStatus::FAILED);
  EXPECT_EQ(status.code(), static_cast<int>(absl::StatusCode::kFailedPrecondition));
  EXPECT_THAT(status.error(), HasSubstr(std::to_string(model_->image.bytes)));
  EXPECT_FALSE(status.host_short());
  EXPECT_EQ(mapped_, nullptr);
}

TEST_F(MasterTest, UnsealedIsNotComplete) {
  UniqueFd fd = Memfd(model_->image.bytes);
  Use(1, fd.get(), true);
  const v1::MasterStatus status = Answer();
  EXPECT_EQ(status.state(), v1::MasterStatus::FAILED);
  EXPECT_THAT(status.error(), HasSubstr("not sealed"));
}

}  // namespace
}  // namespace switchyard::worker
