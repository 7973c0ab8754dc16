#pragma once

// An image that is read block by block, in any order, by several threads: a file of the image
// cache, or a checkpoint from which the image is a copy.

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "common/checked.h"
#include "worker/model/image.h"

namespace switchyard::worker {

// For one thread.
class BlockReads {
 public:
  struct Done {
    uint64_t block = 0;
    absl::Status status;  // OK: it is there, and what it should be
  };
  // Those on their way have ended by then.
  virtual ~BlockReads() = default;
  // Reads a block to `to`, which has room for it.
  virtual void Start(uint64_t block, std::byte* to) = 0;
  // Waits until one that was started is done; there is one.
  virtual Done Await() = 0;
};

class ImageBlocks {
 public:
  virtual ~ImageBlocks() = default;
  // For up to `depth` blocks on their way; for one thread.
  virtual std::unique_ptr<BlockReads> Open(size_t depth) const = 0;
  // Whether a thread can have several blocks on their way; else it takes as many threads.
  virtual bool together() const = 0;
  virtual uint64_t bytes() const = 0;

  uint64_t blocks() const { return CeilDiv(bytes(), kChecksumBlock); }
  uint64_t BlockBytes(uint64_t block) const {
    const uint64_t at = block * kChecksumBlock;
    return bytes() - at < kChecksumBlock ? bytes() - at : kChecksumBlock;
  }
};

}  // namespace switchyard::worker
