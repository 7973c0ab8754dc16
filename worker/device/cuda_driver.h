#pragma once

// CUDA's errors as statuses, and the driver's calls for which the runtime has no equivalent.

#include <cudaTypedefs.h>
#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace switchyard::worker {

// RESOURCE_EXHAUSTED where the device has no memory left.
absl::Status CudaStatus(cudaError_t error, const char* what);
absl::Status CudaStatus(CUresult result, const char* what);

// Found at run time and never linked, so that a program starts where there is no driver.
struct CudaDriver {
  PFN_cuMemAddressReserve_v10020 reserve = nullptr;
  PFN_cuMemAddressFree_v10020 free = nullptr;
  PFN_cuMemCreate_v10020 create = nullptr;
  PFN_cuMemRelease_v10020 release = nullptr;
  PFN_cuMemMap_v10020 map = nullptr;
  PFN_cuMemUnmap_v10020 unmap = nullptr;
  PFN_cuMemSetAccess_v10020 set_access = nullptr;
  PFN_cuMemGetAllocationGranularity_v10020 granularity = nullptr;

  // FAILED_PRECONDITION without a driver, or with one that lacks a call.
  static absl::StatusOr<CudaDriver> Load();
};

}  // namespace switchyard::worker
