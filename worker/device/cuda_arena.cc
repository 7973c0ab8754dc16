#include "worker/device/cuda_arena.h"

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/checked.h"
#include "common/human.h"
#include "common/log.h"
#include "common/status_macros.h"

namespace switchyard::worker {

CUmemAllocationProp CudaMemoryKind() {
  CUmemAllocationProp kind = {};
  kind.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  kind.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  kind.location.id = 0;
  return kind;
}

absl::StatusOr<std::unique_ptr<CudaArena>> CudaArena::Reserve(const CudaDriver& driver,
                                                              uint64_t page_bytes, uint64_t bytes) {
  bytes = RoundUp(bytes == 0 ? 1 : bytes, page_bytes);
  CUdeviceptr base = 0;
  RETURN_IF_ERROR(
      CudaStatus(driver.reserve(&base, bytes, page_bytes, 0, 0), "reserving device addresses"));
  return std::unique_ptr<CudaArena>(new CudaArena(driver, page_bytes, base, bytes));
}

CudaArena::~CudaArena() {
  while (!mapped_.empty()) {
    const auto [offset, bytes] = *mapped_.begin();
    if (absl::Status status = Release(offset, bytes); !status.ok()) {
      LogError("device memory stays mapped: ", status.ToString());
      return;
    }
  }
  driver_.free(base_, bytes_);
}

absl::Status CudaArena::Commit(uint64_t offset, uint64_t bytes) {
  SY_CHECK(offset % page_bytes_ == 0 && bytes % page_bytes_ == 0 && bytes > 0 &&
           offset + bytes <= bytes_);
  std::lock_guard lock(mu_);
  const auto after = mapped_.lower_bound(offset);
  SY_CHECK(after == mapped_.end() || offset + bytes <= after->first);
  if (absl::Status status = MapNew(base_ + offset, bytes); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat("cannot commit ", HumanBytes(bytes),
                                                    " of device memory: ", status.message()));
  }
  mapped_.emplace(offset, bytes);
  committed_ += bytes;
  return absl::OkStatus();
}

// A mapping keeps its memory: the handle is not needed beyond this.
absl::Status CudaArena::MapNew(CUdeviceptr at, uint64_t bytes) {
  const CUmemAllocationProp kind = CudaMemoryKind();
  CUmemGenericAllocationHandle handle = 0;
  RETURN_IF_ERROR(CudaStatus(driver_.create(&handle, bytes, &kind, 0), "cuMemCreate"));
  absl::Status status = CudaStatus(driver_.map(at, bytes, 0, handle, 0), "cuMemMap");
  driver_.release(handle);
  RETURN_IF_ERROR(status);
  const CUmemAccessDesc access = {kind.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  status = CudaStatus(driver_.set_access(at, bytes, &access, 1), "cuMemSetAccess");
  if (!status.ok()) driver_.unmap(at, bytes);
  return status;
}

absl::Status CudaArena::Release(uint64_t offset, uint64_t bytes) {
  std::lock_guard lock(mu_);
  const uint64_t end = offset + bytes;
  for (auto it = mapped_.lower_bound(offset); it != mapped_.end() && it->first < end;) {
    SY_CHECK(it->first + it->second <= end);
    RETURN_IF_ERROR(CudaStatus(driver_.unmap(base_ + it->first, it->second), "cuMemUnmap"));
    committed_ -= it->second;
    it = mapped_.erase(it);
  }
  return absl::OkStatus();
}

}  // namespace switchyard::worker
