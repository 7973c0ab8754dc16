#include "common/master_seals.h"

#include <fcntl.h>

#include "common/unique_fd.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010  // Linux 5.1; glibc 2.36 does not name it
#endif

namespace switchyard {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE;

}  // namespace

absl::Status SealMaster(int fd) {
  if (::fcntl(fd, F_ADD_SEALS, kSeals) == 0) return absl::OkStatus();
  return ErrnoStatus("sealing the master");
}

bool IsSealedMaster(int fd) {
  const int seals = ::fcntl(fd, F_GET_SEALS);
  return seals >= 0 && (seals & kSeals) == kSeals;
}

}  // namespace switchyard
