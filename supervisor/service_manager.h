#pragma once

#include <functional>
#include <memory>
#include <string>

#include "supervisor/ports.h"
#include "supervisor/router.h"

namespace switchyard::supervisor {

// Tells the service manager how the supervisor is, as sd_notify(3) has it: on the socket that
// NOTIFY_SOCKET names, and nowhere without it. In the event loop's tasks.
class ServiceManager {
 public:
  ServiceManager(Timers* timers, Router* router);
  ~ServiceManager();

  // It serves. From now on STATUS says in a line what the models do, and as long as the event loop
  // turns and nothing is stuck, WATCHDOG comes twice in the time that WATCHDOG_USEC allows; after
  // something was, as soon as it is not.
  void Ready();
  // It reads its configuration again; Reloaded follows.
  void Reloading();
  void Reloaded();
  void Stopping();

 private:
  class StatusTeller;
  void PetWatchdog();
  void ResendLater();  // again and again, as long as its socket has no room for something

  Timers* timers_;
  Router* router_;
  std::shared_ptr<StatusTeller> status_;
  Nanos period_ = 0;  // of WATCHDOG; 0: nobody waits for it
  Timers::Id pet_ = 0, resend_ = 0;
};

}  // namespace switchyard::supervisor
