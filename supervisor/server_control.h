#pragma once

#include <functional>

#include "supervisor/event_loop.h"
#include "supervisor/router.h"
#include "supervisor/server_call.h"

namespace switchyard::supervisor {

// Reads models.d again and answers when the router has the result. Called in a task.
using ReloadFunction = std::function<void(Reply<v1::ReloadConfigReply>)>;

// Adds the methods of switchyard.v1.Control. Calls from where `access` does not serve it are
// PERMISSION_DENIED.
void AddControl(EventLoop* loop, Router* router, ReloadFunction reload,
                v1::SupervisorConfig::ControlAccess access, ServerCall::Methods* methods);

}  // namespace switchyard::supervisor
