#pragma once

#include <cstddef>
#include <functional>

#include "absl/status/status.h"

namespace switchyard::worker {

// Runs jobs 0, 1, .. count - 1 on a few threads, each started in order. `progress`, if any, is
// called on the calling thread with the number of leading jobs that are complete; when it returns
// false no more jobs start and the result is CANCELLED. Else the result is the first error.
absl::Status RunInOrder(size_t count, const std::function<absl::Status(size_t job)>& run,
                        const std::function<bool(size_t leading)>& progress);

}  // namespace switchyard::worker
