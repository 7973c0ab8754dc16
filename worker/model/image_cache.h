#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/io/checkpoint.h"
#include "worker/model/image.h"
#include "worker/model/image_blocks.h"

namespace switchyard::worker {

// The image cache: files `<key>.image` in a directory, checksummed, written beside and renamed.
// ReadImageCache: NOT_FOUND if there is none; DATA_LOSS (and the file is removed) if it is not what
// it says. Files used longest ago make room for a new one, so that the directory stays within
// `max_bytes`; an image that is larger than that is not kept (RESOURCE_EXHAUSTED), nor is one that
// others leave no room for which are being written; one that is built for want of a master then
// takes more for as long as that takes. `progress` as above: when it is told of bytes that were
// read, they are what was written. Reading returns the image's checksum. What the page cache does
// not hold is read around it where `image` starts at a page and the file system allows that.
absl::StatusOr<uint64_t> ReadImageCache(const std::string& dir, const ImageLayout& layout,
                                        std::span<std::byte> image,
                                        const std::function<bool(uint64_t)>& progress);
constexpr uint64_t kImageCacheBytes = uint64_t{64} << 30;
absl::Status WriteImageCache(const std::string& dir, const ImageLayout& layout,
                             std::span<const std::byte> image,
                             uint64_t max_bytes = kImageCacheBytes,
                             const std::function<bool(uint64_t)>& progress = nullptr);

// For those who have no memory for a whole image: blocks of a file that is there, which stay
// readable when it is removed, and a file that is made without holding the image. Errors as above.
absl::StatusOr<std::unique_ptr<const ImageBlocks>> OpenImageCache(const std::string& dir,
                                                                  const ImageLayout& layout);
absl::Status BuildImageCache(const std::string& dir, const ImageLayout& layout,
                             const Checkpoint& checkpoint, uint64_t max_bytes,
                             const std::function<bool(uint64_t)>& progress,
                             FillReport* report = nullptr);
// One of whose blocks is damaged goes, so that it is made anew.
void RemoveFromImageCache(const std::string& dir, const ImageLayout& layout);

}  // namespace switchyard::worker
