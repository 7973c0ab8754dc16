#pragma once

// The one place that knows which devices this build can drive.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "kernels/ops.h"
#include "switchyard/v1/model.pb.h"
#include "worker/device/device.h"

namespace switchyard::worker {

bool HaveCuda();

struct Backend {
  std::unique_ptr<Device> device;
  std::unique_ptr<kernels::Ops> ops;
};
// `device`: "cpu" or a GPU's UUID. Where it is a GPU's: once in a process, and before there are
// threads, whose environment changes.
void SelectDevice(const std::string& device);
// The device that was selected. `threads`: of `cpu`, at least 1. FAILED_PRECONDITION names what the
// GPU or the driver lacks. No context is made and no memory taken yet. `model`: whose options
// choose the kernels.
absl::StatusOr<Backend> OpenBackend(const std::string& device, int threads,
                                    const v1::Model& model = {});

// Why prefill is slower than it could be, or empty: cuBLASLt is not there, as OpenBackend has
// found, and nothing of the model leaves it out.
std::string SlowPrefill(const std::string& device, const kernels::Ops& ops, const v1::Model& model);

// Ops that tell the sizes of their scratch; a GPU's touch no device, and there need not be one.
absl::StatusOr<std::unique_ptr<kernels::Ops>> PlanningOps(const std::string& device, int threads,
                                                          const v1::Model& model = {});

}  // namespace switchyard::worker
