#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "supervisor/ports.h"
#include "supervisor/router.h"

namespace switchyard::supervisor {

// Tells the service manager how the supervisor is, as sd_notify(3) has it: on the socket that
// NOTIFY_SOCKET names, and nowhere without it. In the event loop's tasks.
class ServiceManager {
 public:
  ServiceManager(Timers* timers, Router* router, Echo echo);
  ~ServiceManager();

  // Whether there is anybody to be told.
  static bool Listens();
  // Before Start: what comes next may take this long.
  static void NotReadyFor(Nanos time);

  // It accepts requests. From now on STATUS says in a line what the models do, and as long as the
  // event loop turns, calls and workers are heard, and nothing is stuck, WATCHDOG comes twice in
  // the time that WATCHDOG_USEC allows; after something was, as soon as it is not. READY comes when
  // readiness.h says so, and the STATUS of that moment behind it, and until then
  // EXTEND_TIMEOUT_USEC. If that was given up, STATUS says what is missing as long as it is.
  void Start();
  // It reads its configuration again; Reloaded follows. Before READY, and once it stops, nobody is
  // told.
  void Reloading();
  void Reloaded();
  // It drains, and ends within this time: EXTEND_TIMEOUT_USEC asks for it. May be told again.
  void Stopping(Nanos within);

 private:
  class StatusTeller;
  void LookAtReadiness();
  void NoteProgress(const std::vector<Standing>& models);
  void TellReadiness(const Readiness& readiness);
  void TellReady();
  void PetWatchdog();
  std::string Stuck() const;
  void ResendLater();  // again and again, as long as its socket has no room for something

  Timers* timers_;
  Router* router_;
  const Echo echo_;
  std::shared_ptr<bool> heard_;  // the echo of what was asked when the watchdog was last told
  std::shared_ptr<StatusTeller> status_;
  bool ready_ = false;     // READY was told
  bool stopping_ = false;  // STOPPING was told
  Nanos started_at_ = 0;
  Nanos got_on_at_ = 0;  // the models, on their way to answering
  uint64_t progress_ = 0;
  Nanos extended_at_ = 0;  // EXTEND_TIMEOUT_USEC was told; 0: never
  Timers::Id look_ = 0;
  Nanos period_ = 0;  // of WATCHDOG; 0: nobody waits for it
  Timers::Id pet_ = 0, resend_ = 0;
};

}  // namespace switchyard::supervisor
