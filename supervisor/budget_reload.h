#pragma once

#include "absl/status/statusor.h"
#include "supervisor/configuration.h"
#include "supervisor/devices.h"

namespace switchyard::supervisor {

// What counts in a running supervisor.
struct InForce {
  Configuration told;
  Budget budget;
};

// `now` with the sizes of devices of `read`, which may change while models are served; what else it
// says counts at the next start. INVALID_ARGUMENT if it names other devices, or memory with which
// no supervisor would start.
absl::StatusOr<InForce> ReloadBudget(const Configuration& read, const InForce& now);

}  // namespace switchyard::supervisor
