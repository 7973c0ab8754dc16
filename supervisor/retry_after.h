#pragma once

#include <string>

#include "absl/status/status.h"
#include "common/clock.h"

namespace switchyard::supervisor {

// google.rpc.RetryInfo travels as a payload of the status, and so reaches the client from wherever
// a call is refused.
absl::Status WithRetryAfter(absl::Status status, Nanos delay);
Nanos RetryAfter(const absl::Status& status);  // 0: it does not say

// The same in other words: when to ask again stays.
absl::Status Reworded(const absl::Status& status, absl::StatusCode code,
                      const std::string& message);

constexpr Nanos kLeastRetry = kSecond;  // where it may be sooner than anybody should ask

}  // namespace switchyard::supervisor
