#pragma once

#include <cstdint>
#include <functional>
#include <utility>

#include "absl/status/status.h"

namespace switchyard::worker {

// How much is filled between two looks: less than the reserve.
constexpr uint64_t kHostSlice = uint64_t{32} << 20;

// Watches, while a memfd is being filled, whether the host has memory for the rest of it. Without
// that the kernel kills somebody in the end, who need not be the one that fills.
class HostRoom {
 public:
  // Whether the host has `bytes` more: CheckHostHas.
  using Has = std::function<absl::Status(uint64_t bytes)>;

  HostRoom(int fd, uint64_t bytes, Has has, uint64_t slice = kHostSlice)
      : fd_(fd), bytes_(bytes), has_(std::move(has)), slice_(slice) {}

  // Looks if `filled` has moved by a slice, and the first time. Once it is short it stays so; what
  // is all there never is.
  absl::Status Look(uint64_t filled);
  const absl::Status& status() const { return status_; }

 private:
  uint64_t Left() const;

  const int fd_;
  const uint64_t bytes_;
  const Has has_;
  const uint64_t slice_;
  uint64_t next_ = 0;
  absl::Status status_;
};

}  // namespace switchyard::worker
