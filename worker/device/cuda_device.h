#pragma once

// Only where the build has CUDA.

#include <memory>
#include <string>

#include "worker/device/device.h"

namespace switchyard::worker {

// This process's GPU, by UUID; before anything of CUDA is called and before there are threads.
void SelectCudaDevice(const std::string& uuid);

// Touches no device until memory is asked of it.
std::unique_ptr<Device> MakeCudaDevice();

}  // namespace switchyard::worker
