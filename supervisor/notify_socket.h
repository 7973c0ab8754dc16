#pragma once

#include <functional>
#include <string>

namespace switchyard::supervisor {

// Tells the service manager `state`, and hands it `fd` unless that is -1: a datagram to the socket
// that NOTIFY_SOCKET names, as sd_notify(3) has it, and nothing without it. Unlike the library's it
// never waits: a manager that does not read costs messages, not service. What finds the socket full
// waits its turn, a few hundred messages at most.
void Notify(std::string state, int fd = -1);

// Sends what waits, as far as the socket takes it; whether that is all.
bool SendWaitingNotifications();

// `wait` is called by whoever brings a message that has to wait. Null: nobody needs to know.
void OnWaitingNotifications(std::function<void()> wait);

}  // namespace switchyard::supervisor
