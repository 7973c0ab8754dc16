#include "worker/model/image_follower.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/status_macros.h"
#include "common/unique_fd.h"
#include "worker/model/image_file.h"

namespace switchyard::worker {

ImageFollower::ImageFollower(int fd, const ImageLayout& layout, std::span<const std::byte> image)
    : fd_(fd),
      layout_(layout),
      image_(image.first(layout.bytes)),
      offset_(ImageFileOffset(layout.bytes)),
      behind_(fd) {}

absl::Status ImageFollower::Advance(uint64_t complete) {
  while (digested_ < image_.size() &&
         complete >= std::min<uint64_t>(digested_ + kChecksumBlock, image_.size())) {
    const uint64_t bytes = std::min<uint64_t>(kChecksumBlock, image_.size() - digested_);
    digests_.push_back(BlockDigest(image_.subspan(digested_, bytes), digests_.size()));
    digested_ += bytes;
  }
  return behind_.Advance(offset_ + digested_);
}

uint64_t ImageFollower::settled() const {
  return behind_.settled() - std::min(behind_.settled(), offset_);
}

absl::Status ImageFollower::Finish() {
  RETURN_IF_ERROR(Advance(image_.size()));
  RETURN_IF_ERROR(WriteAt(fd_, 0, ImageFileHeader(layout_, digests_)));
  if (::fsync(fd_) != 0) return ErrnoStatus("writing an image file back");
  return absl::OkStatus();
}

absl::Status WriteAt(int fd, uint64_t offset, std::span<const std::byte> data) {
  while (!data.empty()) {
    const size_t most = std::min<size_t>(data.size(), size_t{1} << 30);
    const ssize_t n = ::pwrite(fd, data.data(), most, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus("write of an image file");
    offset += static_cast<uint64_t>(n);
    data = data.subspan(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

}  // namespace switchyard::worker
