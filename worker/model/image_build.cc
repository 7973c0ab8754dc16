#include "worker/model/image_build.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/checked.h"
#include "common/human.h"
#include "common/status_macros.h"
#include "common/unique_fd.h"
#include "worker/model/image_file.h"

namespace switchyard::worker {
namespace {

// Written back and let go of in these: far more than a disk takes at once, far less than a host
// has.
constexpr uint64_t kBehind = uint64_t{64} << 20;

// The image's part of the file, mapped.
class FileMap {
 public:
  FileMap() = default;
  ~FileMap() {
    if (data_ != nullptr) ::munmap(data_, bytes_);
  }
  FileMap(const FileMap&) = delete;
  FileMap& operator=(const FileMap&) = delete;

  absl::Status Map(int fd, uint64_t offset, uint64_t bytes) {
    void* data =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, static_cast<off_t>(offset));
    if (data == MAP_FAILED) return ErrnoStatus("mapping an image file");
    data_ = static_cast<std::byte*>(data);
    bytes_ = bytes;
    return absl::OkStatus();
  }
  std::span<std::byte> bytes() const { return {data_, bytes_}; }

 private:
  std::byte* data_ = nullptr;
  uint64_t bytes_ = 0;
};

// Follows the prefix that is complete: takes the digests of its blocks while they are in memory,
// then lets go of them.
class Follower {
 public:
  Follower(int fd, uint64_t file_offset, std::span<std::byte> image)
      : fd_(fd), file_offset_(file_offset), image_(image) {}

  void Advance(uint64_t complete) {
    while (digested_ < image_.size() &&
           complete >= std::min<uint64_t>(digested_ + kChecksumBlock, image_.size())) {
      const uint64_t bytes = std::min<uint64_t>(kChecksumBlock, image_.size() - digested_);
      digests_.push_back(BlockDigest(image_.subspan(digested_, bytes), digests_.size()));
      digested_ += bytes;
    }
    while (digested_ - behind_ >= 2 * kBehind) LetGo();
  }
  std::span<const uint64_t> digests() const { return digests_; }

 private:
  // Advice: the pages before the last piece should have been written by now, and the mapping holds
  // them no longer; the kernel takes them when it needs memory.
  void LetGo() {
    (void)::sync_file_range(fd_, static_cast<off_t>(file_offset_ + behind_),
                            static_cast<off_t>(kBehind), SYNC_FILE_RANGE_WRITE);
    ::madvise(image_.data() + behind_, kBehind, MADV_DONTNEED);
    behind_ += kBehind;
  }

  const int fd_;
  const uint64_t file_offset_;
  const std::span<std::byte> image_;
  uint64_t digested_ = 0;
  uint64_t behind_ = 0;
  std::vector<uint64_t> digests_;
};

// Every block of the file, as a mapping whose disk is full faults.
absl::Status Allocate(int fd, uint64_t bytes) {
  const int error = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  if (error == 0) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("no room for an image of ", HumanBytes(bytes), ": ", std::strerror(error)));
}

absl::Status WriteAt(int fd, uint64_t offset, std::span<const std::byte> data) {
  while (!data.empty()) {
    const ssize_t n = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus("write of an image file");
    offset += static_cast<uint64_t>(n);
    data = data.subspan(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status BuildImageFile(int fd, const ImageLayout& layout, const Checkpoint& checkpoint,
                            const std::function<bool(uint64_t)>& progress, FillReport* report) {
  const uint64_t offset = ImageFileOffset(layout.bytes);
  RETURN_IF_ERROR(Allocate(fd, ImageFileBytes(layout.bytes)));
  FileMap map;
  RETURN_IF_ERROR(map.Map(fd, offset, layout.bytes));
  Follower follower(fd, offset, map.bytes());
  RETURN_IF_ERROR(FillImage(
      layout, checkpoint, map.bytes(),
      [&](uint64_t complete) {
        follower.Advance(complete);
        return !progress || progress(complete);
      },
      report));
  follower.Advance(layout.bytes);
  RETURN_IF_ERROR(WriteAt(fd, 0, ImageFileHeader(layout, follower.digests())));
  if (::fsync(fd) != 0) return ErrnoStatus("writing an image file back");
  return absl::OkStatus();
}

}  // namespace switchyard::worker
