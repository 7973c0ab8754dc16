#pragma once

#include <cstdint>

#include "supervisor/event_loop.h"
#include "supervisor/router.h"
#include "supervisor/server_call.h"

namespace switchyard::supervisor {

// Adds the methods of switchyard.v1.Inference.
void AddInference(EventLoop* loop, Router* router, uint64_t sink_limit_bytes,
                  ServerCall::Methods* methods);

}  // namespace switchyard::supervisor
