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

// Of one upload at most, so that the device's own threads read it from a HostBuffer
// (kFewBytes of worker/device/cuda_upload.h).
constexpr uint64_t kBesideWeightsBytes = uint64_t{1} << 20;

// Device::Upload in pieces of that size: the copy engine would bring more than that behind all
// weights that are on their way, and what comes next in the stream with it.
absl::Status UploadBesideWeights(Device& device, void* to, const void* from, uint64_t bytes,
                                 StreamHandle stream);

}  // namespace switchyard::worker
