#pragma once

#include "supervisor/event_loop.h"
#include "supervisor/health.h"
#include "supervisor/server_call.h"

namespace switchyard::supervisor {

// Adds the methods of grpc.health.v1.Health. gRPC's own implementation needs the callback API and
// its threads: see CallQueue.
void AddHealth(EventLoop* loop, Health* health, ServerCall::Methods* methods);

}  // namespace switchyard::supervisor
