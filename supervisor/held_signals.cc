#include "supervisor/held_signals.h"

#include <pthread.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <utility>

namespace switchyard::supervisor {

HeldSignals::HeldSignals() {
  sigemptyset(&held_);
  sigaddset(&held_, SIGTERM);
  sigaddset(&held_, SIGINT);
  stop_ = UniqueFd(::signalfd(-1, &held_, SFD_NONBLOCK | SFD_CLOEXEC));
  sigaddset(&held_, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &held_, &before_);
}

void HeldSignals::PassOn() {
  stop_.Reset();
  ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
}

UniqueFd HeldSignals::Take() {
  taken_ = true;
  sigset_t mask = before_;
  sigaddset(&mask, SIGTERM);
  sigaddset(&mask, SIGINT);
  ::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
  return std::move(stop_);
}

HeldSignals::~HeldSignals() {
  if (taken_) return;
  const timespec no_time{};
  if (stop_.valid()) {
    while (::sigtimedwait(&held_, nullptr, &no_time) > 0) {
    }
  }
  PassOn();
}

}  // namespace switchyard::supervisor
