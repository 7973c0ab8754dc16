#pragma once

#include <cstdint>

#include "common/unique_fd.h"

namespace switchyard::worker {

// Ties this process to its supervisor. To be called before anything else, from the main thread: the
// kernel's signal for the death of a parent is armed, and the process ends at once if the parent
// has died before that, which `supervisor_pid` tells (0: not known; then the death pipe alone
// does).
void BindToSupervisor(int32_t supervisor_pid);

// Ends the process when the other end of the death pipe is closed: the second line, for a
// supervisor that died between fork and prctl, or whose spawning thread is not its last.
void WatchDeathPipe(UniqueFd death_pipe);

}  // namespace switchyard::worker
