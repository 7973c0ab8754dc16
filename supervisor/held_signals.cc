#include "supervisor/held_signals.h"

#include <pthread.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace switchyard::supervisor {

HeldSignals::HeldSignals() {
  sigset_t held;
  sigemptyset(&held);
  sigaddset(&held, SIGTERM);
  sigaddset(&held, SIGINT);
  stop_ = UniqueFd(::signalfd(-1, &held, SFD_NONBLOCK | SFD_CLOEXEC));
  sigaddset(&held, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &held, &before_);
}

void HeldSignals::PassOn() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

HeldSignals::~HeldSignals() {
  signalfd_siginfo come;
  while (::read(stop_.get(), &come, sizeof(come)) > 0) {
  }
  PassOn();
}

}  // namespace switchyard::supervisor
