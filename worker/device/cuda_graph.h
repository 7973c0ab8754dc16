#pragma once

// Work of a CUDA stream, captured as a graph.

#include <cuda_runtime.h>

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/device.h"

namespace switchyard::worker {

absl::StatusOr<std::unique_ptr<Graph>> CaptureCudaGraph(
    cudaStream_t stream, const std::function<absl::Status()>& launch);

}  // namespace switchyard::worker
