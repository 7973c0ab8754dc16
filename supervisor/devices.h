#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/nvml.h"
#include "supervisor/ports.h"

namespace switchyard::supervisor {

// What this machine has, and what of it is ours to lease.
struct Budget {
  std::vector<Device> devices;
  uint64_t host_bytes = 0;
};

// The machine's GPUs, in the driver's order, also those that do not answer. NOT_FOUND where there
// is no driver, FAILED_PRECONDITION in a build without CUDA kernels.
absl::StatusOr<std::vector<Gpu>> FindGpus();

// `devices` are NAME or NAME=SIZE, NAME being "cpu", a GPU's UUID, index or name; none: every GPU,
// else `cpu`. Unset: `host_memory` is a quarter of the available memory, `cpu` is half of what is
// left then, `reserve_bytes` is 0 on `cpu` and 512 MiB on a GPU. A GPU that is named and fails is
// an error; of those that nobody named a warning tells, also where none could be asked.
absl::StatusOr<Budget> FindBudget(const std::vector<std::string>& devices,
                                  const std::string& host_memory,
                                  std::optional<uint64_t> reserve_bytes,
                                  const absl::StatusOr<std::vector<Gpu>>& gpus = FindGpus());

}  // namespace switchyard::supervisor
