#pragma once

#include <functional>
#include <string>

#include "supervisor/event_loop.h"
#include "supervisor/router.h"
#include "supervisor/server_call.h"

namespace switchyard::supervisor {

// Reads models.d again and answers when the router has the result. Called in a task.
using ReloadFunction = std::function<void(Reply<v1::ReloadConfigReply>)>;

// Adds the methods of switchyard.v1.Control. Calls from where `access` does not serve it are
// PERMISSION_DENIED; who is on this machine is told of the Unix socket.
void AddControl(EventLoop* loop, Router* router, ReloadFunction reload,
                v1::SupervisorConfig::ControlAccess access, const std::string& socket,
                ServerCall::Methods* methods);

}  // namespace switchyard::supervisor
