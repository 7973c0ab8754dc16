#pragma once

#include "absl/status/status.h"
#include "worker/options.h"

namespace switchyard::worker {

// Prints the plan on standard output.
absl::Status RunPlan(const Options& options);
// Serves the supervisor on the inherited descriptors until it says Shutdown or goes away.
absl::Status RunServe(const Options& options);

// The exit status of a process that ends like this: 0 if it is OK, else 1; but kNoVerdict for a
// planner that could not tell. Its files could not be read for now (EIO, EMFILE and their like), or
// changed meanwhile: that says nothing of the model.
int ExitStatus(Mode mode, const absl::Status& end);

}  // namespace switchyard::worker
