#include "worker/device/host_buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/checked.h"
#include "common/human.h"
#include "common/log.h"
#include "common/status_macros.h"

namespace switchyard::worker {

namespace {

constexpr uint64_t kHugePageBytes = uint64_t{2} << 20;

// Large ones in huge pages where the kernel has them (advice), since the device waits for all of it
// to be cleared and registered: 4 GiB take 260 ms on a host of 16 cores, in small pages 1230.
absl::StatusOr<void*> Map(uint64_t bytes) {
  const bool large = bytes >= kHugePageBytes;
  const uint64_t mapped = large ? bytes + kHugePageBytes : bytes;
  void* const data =
      mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no host memory for a buffer of ", HumanBytes(bytes), ": ", strerror(errno)));
  }
  if (!large) return data;
  std::byte* const from = static_cast<std::byte*>(data);
  const uint64_t before = -reinterpret_cast<uintptr_t>(from) % kHugePageBytes;
  if (before > 0) munmap(from, before);
  if (before < kHugePageBytes) munmap(from + before + bytes, kHugePageBytes - before);
  madvise(from + before, bytes, MADV_HUGEPAGE);
  return from + before;
}

}  // namespace

absl::StatusOr<std::unique_ptr<HostBuffer>> HostBuffer::Create(Device& device, uint64_t bytes) {
  bytes = RoundUp(bytes == 0 ? 1 : bytes, kCpuPageBytes);
  ASSIGN_OR_RETURN(void* data, Map(bytes));
  if (absl::Status registered = device.RegisterHost(data, bytes); !registered.ok()) {
    munmap(data, bytes);
    return registered;
  }
  return std::unique_ptr<HostBuffer>(new HostBuffer(device, static_cast<std::byte*>(data), bytes));
}

HostBuffer::~HostBuffer() {
  if (absl::Status status = device_.UnregisterHost(data_); !status.ok()) {
    LogWarning("a host buffer stays registered: ", status.ToString());
  }
  munmap(data_, bytes_);
}

absl::Status UploadBesideWeights(Device& device, void* to, const void* from, uint64_t bytes,
                                 StreamHandle stream) {
  for (uint64_t at = 0; at < bytes; at += kBesideWeightsBytes) {
    RETURN_IF_ERROR(device.Upload(static_cast<std::byte*>(to) + at,
                                  static_cast<const std::byte*>(from) + at,
                                  std::min(kBesideWeightsBytes, bytes - at), stream));
  }
  return absl::OkStatus();
}

}  // namespace switchyard::worker
