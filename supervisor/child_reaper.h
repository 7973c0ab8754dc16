#pragma once

#include <sys/types.h>

#include <functional>
#include <map>

#include "supervisor/event_loop.h"

namespace switchyard::supervisor {

// Reaps children on SIGCHLD: only those it was told of, so that whoever else waits for a child of
// its own (plans do, on another thread) is not robbed of it; and what children of ours have left
// behind, for which nobody waits. Whom we start leads a group of its own (Spawn): so does nobody of
// those, unless he means to, and then he stays until we end.
class ChildReaper {
 public:
  explicit ChildReaper(EventLoop* loop);

  // Calls `exited` once, with waitpid's status.
  void Add(pid_t pid, std::function<void(int)> exited);

 private:
  void Reap();
  void ReapLeftBehind();

  std::map<pid_t, std::function<void(int)>> children_;
};

}  // namespace switchyard::supervisor
