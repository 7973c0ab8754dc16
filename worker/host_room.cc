#include "worker/host_room.h"

#include <sys/stat.h>

#include <algorithm>

namespace switchyard::worker {

absl::Status HostRoom::Look(uint64_t filled) {
  if (!status_.ok() || filled < next_) return status_;
  next_ = filled + slice_;
  const uint64_t left = Left();
  if (left > 0) status_ = has_(left);
  return status_;
}

// What is there may be more than has been filled: a device's driver touches what it registers, and
// what a damaged cache had left is filled again.
uint64_t HostRoom::Left() const {
  struct stat st = {};
  constexpr uint64_t kBlock = 512;  // of st_blocks, whatever the file system's are
  if (::fstat(fd_, &st) != 0) return bytes_;
  return bytes_ - std::min(bytes_, static_cast<uint64_t>(st.st_blocks) * kBlock);
}

}  // namespace switchyard::worker
