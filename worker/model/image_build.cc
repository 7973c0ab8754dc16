#include "worker/model/image_build.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <span>

#include "absl/strings/str_cat.h"
#include "common/checked.h"
#include "common/human.h"
#include "common/status_macros.h"
#include "common/unique_fd.h"
#include "worker/model/image_file.h"
#include "worker/model/image_follower.h"

namespace switchyard::worker {
namespace {

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

// The mapping lets go of what is on the disk, and the kernel takes those pages when it needs
// memory. They stay until then, as the device is going to have them.
class LettingGo {
 public:
  explicit LettingGo(std::span<std::byte> image) : image_(image) {}
  void To(uint64_t settled) {
    if (settled > done_) ::madvise(image_.data() + done_, settled - done_, MADV_DONTNEED);
    done_ = settled;
  }

 private:
  const std::span<std::byte> image_;
  uint64_t done_ = 0;
};

// Every block of the file, as a mapping whose disk is full faults.
absl::Status Allocate(int fd, uint64_t bytes) {
  const int error = ::posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  if (error == 0) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("no room for an image of ", HumanBytes(bytes), ": ", std::strerror(error)));
}

}  // namespace

absl::Status BuildImageFile(int fd, const ImageLayout& layout, const Checkpoint& checkpoint,
                            const std::function<bool(uint64_t)>& progress, FillReport* report) {
  const uint64_t offset = ImageFileOffset(layout.bytes);
  RETURN_IF_ERROR(Allocate(fd, ImageFileBytes(layout.bytes)));
  FileMap map;
  RETURN_IF_ERROR(map.Map(fd, offset, layout.bytes));
  ImageFollower follower(fd, layout, map.bytes());
  LettingGo letting_go(map.bytes());
  absl::Status written;
  absl::Status filled = FillImage(
      layout, checkpoint, map.bytes(),
      [&](uint64_t complete) {
        written = follower.Advance(complete);
        letting_go.To(follower.settled());
        return written.ok() && (!progress || progress(complete));
      },
      report);
  RETURN_IF_ERROR(written);
  RETURN_IF_ERROR(filled);
  return follower.Finish();
}

}  // namespace switchyard::worker
