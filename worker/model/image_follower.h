#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "worker/model/image.h"
#include "worker/model/write_behind.h"

namespace switchyard::worker {

// Follows an image into a file of the cache, from its front: takes the digests of its blocks while
// they are at hand, writes the file back, and puts the header before it in the end.
class ImageFollower {
 public:
  // `image` is what is written, and may be the file itself, mapped.
  ImageFollower(int fd, const ImageLayout& layout, std::span<const std::byte> image);

  // So much of the image is in the file.
  absl::Status Advance(uint64_t complete);
  // So much of it is on the disk.
  uint64_t settled() const;
  // All of it is in the file: then all of the file is on the disk.
  absl::Status Finish();

 private:
  const int fd_;
  const ImageLayout& layout_;
  const std::span<const std::byte> image_;
  const uint64_t offset_;  // of the image in the file
  uint64_t digested_ = 0;
  std::vector<uint64_t> digests_;
  WriteBehind behind_;
};

absl::Status WriteAt(int fd, uint64_t offset, std::span<const std::byte> data);

}  // namespace switchyard::worker
