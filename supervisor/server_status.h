#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "common/clock.h"

namespace switchyard::supervisor {

// absl's codes are gRPC's. `retry_after` > 0 adds google.rpc.RetryInfo to the details.
grpc::Status ToGrpc(const absl::Status& status, Nanos retry_after = 0);

}  // namespace switchyard::supervisor
