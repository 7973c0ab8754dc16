#pragma once

#include <signal.h>

#include "common/unique_fd.h"

namespace switchyard::supervisor {

// SIGTERM, SIGINT and SIGHUP until somebody takes them: held back, so that a start that is stopped
// half-way cleans up behind itself. Threads that are started meanwhile never take them.
class HeldSignals {
 public:
  HeldSignals();
  // Forgets what has come and was not passed on; what was taken stays held back.
  ~HeldSignals();

  // Readable once SIGTERM or SIGINT has come.
  int stop_fd() const { return stop_.get(); }
  // Passes on what has come, and holds nothing back any more.
  void PassOn();
  // The descriptor of SIGTERM and SIGINT, which are held back for ever: only who reads it hears
  // of them. SIGHUP is passed on.
  UniqueFd Take();

 private:
  sigset_t held_, before_;
  UniqueFd stop_;
  bool taken_ = false;
};

}  // namespace switchyard::supervisor
