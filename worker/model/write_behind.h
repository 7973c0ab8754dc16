#pragma once

// Writes a file back while it is being written from its front, so that little of it is left when it
// is flushed in the end: a flush cannot be cut short, and pages that wait to be written are memory
// that nobody else gets.

#include <cstdint>

#include "absl/status/status.h"

namespace switchyard::worker {

class WriteBehind {
 public:
  // Far more than a disk takes at once, far less than a host has.
  static constexpr uint64_t kPiece = uint64_t{64} << 20;

  explicit WriteBehind(int fd, uint64_t piece = kPiece) : fd_(fd), piece_(piece) {}

  // All before `end` has been written to the file. Begins to write back every whole piece of it,
  // and waits for the one before the last. Where the file system cannot do that, nothing happens.
  absl::Status Advance(uint64_t end);
  // The file is on the disk to here: nobody needs the page cache for it.
  uint64_t settled() const { return settled_; }

 private:
  absl::Status Range(uint64_t offset, unsigned flags);

  const int fd_;
  const uint64_t piece_;
  uint64_t begun_ = 0;
  uint64_t settled_ = 0;
};

}  // namespace switchyard::worker
