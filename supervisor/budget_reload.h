#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "supervisor/devices.h"
#include "switchyard/v1/model.pb.h"

namespace switchyard::supervisor {

// What a running supervisor leases, and the configuration that says so.
struct BudgetInForce {
  v1::SupervisorConfig config;
  Budget budget;
};

// Reads the configuration file again for the sizes of devices, which may change while models are
// served; what else it says counts at the next start. `now` if the sizes are the same.
// INVALID_ARGUMENT if the file is bad, names other devices, or more memory than there is.
absl::StatusOr<BudgetInForce> ReloadBudget(const std::string& file, const BudgetInForce& now);

}  // namespace switchyard::supervisor
