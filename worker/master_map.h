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
  // To read it. The memfd must be sealed: one that is not is not complete, and could shrink, where
  // a page that goes is a fault.
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

// FAILED_PRECONDITION if the memfd is smaller than `bytes`.
absl::Status CheckMasterSize(int fd, uint64_t bytes);

}  // namespace switchyard::worker
