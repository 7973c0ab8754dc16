#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "common/unique_fd.h"

namespace switchyard::worker {

// A mapping of a master's memfd.
class MasterMap {
 public:
  MasterMap() = default;
  MasterMap(MasterMap&& other) noexcept;
  MasterMap& operator=(MasterMap&& other) noexcept;
  ~MasterMap();

  // To fill it. RESOURCE_EXHAUSTED names what the host lacks.
  static absl::StatusOr<MasterMap> Writable(int fd, uint64_t bytes);
  // To read it. The memfd must be sealed against shrinking: a page that goes is a fault.
  static absl::StatusOr<MasterMap> Readable(int fd, uint64_t bytes);

  // Of one to fill: it cannot be written any more.
  absl::Status MakeReadOnly();

  std::span<std::byte> bytes() const { return {data_, size_}; }
  explicit operator bool() const { return data_ != nullptr; }

 private:
  static absl::StatusOr<MasterMap> Map(int fd, uint64_t bytes, int protection);

  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Against shrinking, growing and writing through any mapping or call yet to come; those who have it
// mapped writable already could go on.
absl::Status SealMaster(int fd);

// FAILED_PRECONDITION if the memfd is smaller than `bytes`.
absl::Status CheckMasterSize(int fd, uint64_t bytes);

}  // namespace switchyard::worker
