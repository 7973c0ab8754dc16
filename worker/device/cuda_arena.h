#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>

#include "absl/status/statusor.h"
#include "worker/device/cuda_driver.h"
#include "worker/device/device.h"

namespace switchyard::worker {

// Device addresses reserved once. Every Commit is one physical allocation, mapped at its place;
// Release unmaps whole ones and their memory is free for every process when it returns. The size of
// a commit is therefore what giving memory back costs: the driver takes some 0.4 ms for 1 GiB and
// 0.03 ms for every allocation (H200; 2 MiB ones take 15 ms a GiB).
class CudaArena final : public Arena {
 public:
  // The device's context exists.
  static absl::StatusOr<std::unique_ptr<CudaArena>> Reserve(const CudaDriver& driver,
                                                            uint64_t page_bytes, uint64_t bytes);
  ~CudaArena() override;
  CudaArena(const CudaArena&) = delete;
  CudaArena& operator=(const CudaArena&) = delete;

  std::byte* base() const override { return reinterpret_cast<std::byte*>(base_); }
  uint64_t reserved_bytes() const override { return bytes_; }
  absl::Status Commit(uint64_t offset, uint64_t bytes) override;
  // The range begins and ends where commits do.
  absl::Status Release(uint64_t offset, uint64_t bytes) override;
  uint64_t committed_bytes() const override { return committed_; }

 private:
  CudaArena(const CudaDriver& driver, uint64_t page_bytes, CUdeviceptr base, uint64_t bytes)
      : driver_(driver), page_bytes_(page_bytes), base_(base), bytes_(bytes) {}
  absl::Status MapNew(CUdeviceptr at, uint64_t bytes);

  const CudaDriver& driver_;
  const uint64_t page_bytes_;
  const CUdeviceptr base_;
  const uint64_t bytes_;
  std::mutex mu_;
  std::map<uint64_t, uint64_t> mapped_;  // offset -> bytes of each allocation
  std::atomic<uint64_t> committed_ = 0;
};

// What physical memory and where: the process's only device, no handles for others.
CUmemAllocationProp CudaMemoryKind();

}  // namespace switchyard::worker
