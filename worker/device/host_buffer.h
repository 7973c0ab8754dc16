#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/device/device.h"

namespace switchyard::worker {

// Host memory that the device copies from and to at full rate: whole pages, registered with it,
// given back to the kernel on destruction. Zeroed.
class HostBuffer {
 public:
  static absl::StatusOr<std::unique_ptr<HostBuffer>> Create(Device& device, uint64_t bytes);
  ~HostBuffer();
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;

  std::byte* data() const { return data_; }

 private:
  HostBuffer(Device& device, std::byte* data, uint64_t bytes)
      : device_(device), data_(data), bytes_(bytes) {}

  Device& device_;
  std::byte* data_;
  uint64_t bytes_;
};

}  // namespace switchyard::worker
