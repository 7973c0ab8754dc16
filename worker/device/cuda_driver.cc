#include "worker/device/cuda_driver.h"

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace switchyard::worker {
namespace {

constexpr unsigned int kVersion = 10020;  // the calls' own: CUDA 10.2

template <typename Function>
absl::Status Find(const char* name, Function& function) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  RETURN_IF_ERROR(CudaStatus(
      cudaGetDriverEntryPointByVersion(name, &found, kVersion, cudaEnableDefault, &result), name));
  if (result != cudaDriverEntryPointSuccess || found == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("the CUDA driver has no ", name));
  }
  function = reinterpret_cast<Function>(found);
  return absl::OkStatus();
}

}  // namespace

absl::Status CudaStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string message = absl::StrCat(what, ": ", cudaGetErrorString(error));
  switch (error) {
    case cudaErrorMemoryAllocation:
      // Not sticky; the next call's check must not find it.
      (void)cudaGetLastError();
      return absl::ResourceExhaustedError(message);
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorInvalidDevice:
      return absl::FailedPreconditionError(message);
    default:
      (void)cudaGetLastError();
      return absl::InternalError(message);
  }
}

absl::Status CudaStatus(CUresult result, const char* what) {
  if (result == CUDA_SUCCESS) return absl::OkStatus();
  if (result == CUDA_ERROR_OUT_OF_MEMORY) {
    return absl::ResourceExhaustedError(absl::StrCat(what, ": the device has no memory left"));
  }
  return absl::InternalError(absl::StrCat(what, ": CUDA driver error ", static_cast<int>(result),
                                          " (CUresult in cuda.h)"));
}

absl::StatusOr<CudaDriver> CudaDriver::Load() {
  CudaDriver driver;
  RETURN_IF_ERROR(Find("cuMemAddressReserve", driver.reserve));
  RETURN_IF_ERROR(Find("cuMemAddressFree", driver.free));
  RETURN_IF_ERROR(Find("cuMemCreate", driver.create));
  RETURN_IF_ERROR(Find("cuMemRelease", driver.release));
  RETURN_IF_ERROR(Find("cuMemMap", driver.map));
  RETURN_IF_ERROR(Find("cuMemUnmap", driver.unmap));
  RETURN_IF_ERROR(Find("cuMemSetAccess", driver.set_access));
  RETURN_IF_ERROR(Find("cuMemGetAllocationGranularity", driver.granularity));
  return driver;
}

}  // namespace switchyard::worker
