#pragma once

#include <functional>

namespace switchyard::cli {

// Turns Ctrl-C into a call, on a thread of its own; the second Ctrl-C ends the process. Call it
// before other threads are started, since they must not take the signal.
void OnInterrupt(std::function<void()> interrupted);

}  // namespace switchyard::cli
