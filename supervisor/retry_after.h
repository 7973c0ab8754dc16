#pragma once

#include "absl/status/status.h"
#include "common/clock.h"

namespace switchyard::supervisor {

// google.rpc.RetryInfo travels as a payload of the status, and so reaches the client from wherever
// a call is refused.
absl::Status WithRetryAfter(absl::Status status, Nanos delay);
Nanos RetryAfter(const absl::Status& status);  // 0: it does not say

}  // namespace switchyard::supervisor
