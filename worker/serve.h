#pragma once

#include "absl/status/status.h"
#include "worker/options.h"

namespace switchyard::worker {

// Prints the plan on standard output.
absl::Status RunPlan(const Options& options);
// Serves the supervisor on the inherited descriptors until it says Shutdown or goes away.
absl::Status RunServe(const Options& options);

}  // namespace switchyard::worker
