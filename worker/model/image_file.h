#pragma once

// A file of the image cache: a header that names the key, the size and the checksum of the image,
// the digests of its blocks, and from a page border on the image itself, so that it can be read
// with aligned direct I/O and every block can be used as soon as it was read.

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/unique_fd.h"
#include "worker/io/file_reads.h"
#include "worker/model/image_blocks.h"

namespace switchyard::worker {

class ImageFile final : public ImageBlocks {
 public:
  // NOT_FOUND if there is none; DATA_LOSS if its header, digests or size are not what they should
  // be, or the disk cannot read them. The file stays readable when it is removed.
  static absl::StatusOr<std::unique_ptr<ImageFile>> Open(const std::string& path,
                                                         const ImageLayout& layout,
                                                         MakeReads make_reads = MakeFileReads);

  // What the page cache does not hold is read around it (O_DIRECT), where the file system allows
  // that and memory starts at a page: a copy less, and nobody's pages are pushed out. A block that
  // is not what it was when it was written, or that the disk cannot read, is DATA_LOSS.
  std::unique_ptr<BlockReads> Open(size_t depth) const override;
  bool together() const override { return together_; }
  uint64_t bytes() const override { return bytes_; }

  uint64_t checksum() const { return checksum_; }
  // The file's time says when it was used last.
  void MarkUsed() const;

 private:
  class Blocks;
  ImageFile() = default;
  absl::Status ReadHeader(const ImageLayout& layout);
  // Through the page cache.
  absl::Status ReadAll(uint64_t offset, std::byte* out, uint64_t bytes) const;
  absl::Status Damaged(const std::string& how) const;

  std::string path_;  // for messages
  MakeReads make_reads_;
  bool together_ = false;
  UniqueFd buffered_, direct_;
  uint64_t bytes_ = 0;
  uint64_t data_offset_ = 0;
  uint64_t checksum_ = 0;
  std::vector<uint64_t> digests_;
};

// For whoever writes one: where the image begins, how large the file is, and what stands before it.
uint64_t ImageFileOffset(uint64_t image_bytes);
uint64_t ImageFileBytes(uint64_t image_bytes);
std::vector<std::byte> ImageFileHeader(const ImageLayout& layout,
                                       std::span<const uint64_t> digests);

}  // namespace switchyard::worker
