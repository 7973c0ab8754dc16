#pragma once

#include "supervisor/server_call.h"

namespace switchyard::supervisor {

// Adds grpc.reflection.v1alpha.ServerReflection, which tells of the services of `methods` (and of
// itself). gRPC's own implementation is synchronous and needs threads: see CallQueue.
void AddReflection(ServerCall::Methods* methods);

}  // namespace switchyard::supervisor
