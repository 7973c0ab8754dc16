#include "worker/model/write_behind.h"

#include <fcntl.h>

#include <cerrno>

#include "common/status_macros.h"

namespace switchyard::worker {

absl::Status WriteBehind::Advance(uint64_t end) {
  for (; end - begun_ >= piece_; begun_ += piece_) {
    RETURN_IF_ERROR(Range(begun_, SYNC_FILE_RANGE_WRITE));
    if (begun_ == settled_) continue;
    RETURN_IF_ERROR(Range(settled_, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                                        SYNC_FILE_RANGE_WAIT_AFTER));
    settled_ += piece_;
  }
  return absl::OkStatus();
}

// Who waits is told of what could not be written, and a flush is not told again.
absl::Status WriteBehind::Range(uint64_t offset, unsigned flags) {
  int result = 0;
  do {
    result = ::sync_file_range(fd_, static_cast<off_t>(offset), static_cast<off_t>(piece_), flags);
  } while (result != 0 && errno == EINTR);
  if (result == 0 || errno == ENOSYS || errno == EINVAL || errno == ESPIPE) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, "writing an image file back");
}

}  // namespace switchyard::worker
