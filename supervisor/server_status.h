#pragma once

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace switchyard::supervisor {

// absl's codes are gRPC's, and payloads (see retry_after.h) its details. There are always details,
// if only the code and the message again: a client tells our word by them from its own gRPC's. A
// very long message is cut.
grpc::Status ToGrpc(const absl::Status& status);

}  // namespace switchyard::supervisor
