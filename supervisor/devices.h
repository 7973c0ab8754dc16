#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/ports.h"

namespace switchyard::supervisor {

// What this machine has, and what of it is ours to lease.
struct Budget {
  std::vector<Device> devices;
  uint64_t host_bytes = 0;
};

// `devices` are NAME or NAME=SIZE, NAME being "cpu", a GPU's UUID, index or name; none: every GPU,
// else `cpu`. Unset: `host_memory` is a quarter of the available memory, `cpu` is half of what is
// left then, `reserve_bytes` is 0 on `cpu` and 512 MiB on a GPU.
absl::StatusOr<Budget> FindBudget(const std::vector<std::string>& devices,
                                  const std::string& host_memory,
                                  std::optional<uint64_t> reserve_bytes);

}  // namespace switchyard::supervisor
