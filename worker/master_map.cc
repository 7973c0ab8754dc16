#include "worker/master_map.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/master_seals.h"
#include "common/status_macros.h"

namespace switchyard::worker {

MasterMap::MasterMap(MasterMap&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MasterMap& MasterMap::operator=(MasterMap&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MasterMap::~MasterMap() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

absl::StatusOr<MasterMap> MasterMap::Map(int fd, uint64_t bytes, int protection) {
  RETURN_IF_ERROR(CheckMasterSize(fd, bytes));
  void* data = ::mmap(nullptr, bytes, protection, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) return ErrnoStatus("mapping the master");
  // Fewer faults while filling and fewer misses while copying; small pages where it is forbidden.
  ::madvise(data, bytes, MADV_HUGEPAGE);
  MasterMap map;
  map.data_ = static_cast<std::byte*>(data);
  map.size_ = bytes;
  return map;
}

absl::StatusOr<MasterMap> MasterMap::Writable(int fd, uint64_t bytes) {
  return Map(fd, bytes, PROT_READ | PROT_WRITE);
}

absl::StatusOr<MasterMap> MasterMap::Readable(int fd, uint64_t bytes) {
  if (!IsSealedMaster(fd)) return absl::FailedPreconditionError("the master is not sealed");
  return Map(fd, bytes, PROT_READ);
}

absl::Status MasterMap::MakeReadOnly() {
  if (::mprotect(data_, size_, PROT_READ) == 0) return absl::OkStatus();
  return ErrnoStatus("protecting the master");
}

absl::Status CheckMasterSize(int fd, uint64_t bytes) {
  struct stat st;
  if (::fstat(fd, &st) != 0) return ErrnoStatus("size of the master");
  if (static_cast<uint64_t>(st.st_size) >= bytes) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the master has ", st.st_size, " bytes, the image needs ", bytes));
}

}  // namespace switchyard::worker
