#pragma once

#include <cstdint>

#include "absl/status/statusor.h"

namespace switchyard {

// Bytes of memory that this machine, or the control group that we are in, has to give: the smallest
// of MemAvailable and what each group on the way up leaves of its limit.
absl::StatusOr<uint64_t> AvailableMemory();

// Bytes of memory that there are: of this machine, or the smallest limit of the control groups that
// we are in.
absl::StatusOr<uint64_t> TotalMemory();

}  // namespace switchyard
