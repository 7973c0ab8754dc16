#pragma once

#include <atomic>
#include <memory>

#include "absl/status/statusor.h"
#include "worker/device/device.h"

namespace switchyard::worker {

// Reserved address space of this process, advised for huge pages. Committing makes a range
// accessible (pages come with the first touch), releasing gives its pages back to the kernel.
class CpuArena final : public Arena {
 public:
  static absl::StatusOr<std::unique_ptr<CpuArena>> Reserve(uint64_t bytes);
  ~CpuArena() override;
  CpuArena(const CpuArena&) = delete;
  CpuArena& operator=(const CpuArena&) = delete;

  std::byte* base() const override { return base_; }
  uint64_t reserved_bytes() const override { return bytes_; }
  absl::Status Commit(uint64_t offset, uint64_t bytes) override;
  absl::Status Release(uint64_t offset, uint64_t bytes) override;
  uint64_t committed_bytes() const override { return committed_; }

 private:
  CpuArena(void* mapping, uint64_t mapping_bytes, std::byte* base, uint64_t bytes)
      : mapping_(mapping), mapping_bytes_(mapping_bytes), base_(base), bytes_(bytes) {}

  void* mapping_;
  uint64_t mapping_bytes_;
  std::byte* base_;  // 2 MiB aligned, inside the mapping
  uint64_t bytes_;
  std::atomic<uint64_t> committed_ = 0;
};

}  // namespace switchyard::worker
