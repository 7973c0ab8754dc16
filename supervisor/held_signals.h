#pragma once

#include <signal.h>

#include "common/unique_fd.h"

namespace switchyard::supervisor {

// SIGTERM, SIGINT and SIGHUP until the event loop takes them: held back, so that a start that is
// stopped half-way cleans up behind itself. Threads that are started meanwhile never take them.
class HeldSignals {
 public:
  HeldSignals();
  // Forgets what has come and was not passed on.
  ~HeldSignals();

  // Readable once SIGTERM or SIGINT has come.
  int stop_fd() const { return stop_.get(); }
  // Passes on what has come, and holds nothing back any more.
  void PassOn();

 private:
  sigset_t held_, before_;
  UniqueFd stop_;
};

}  // namespace switchyard::supervisor
