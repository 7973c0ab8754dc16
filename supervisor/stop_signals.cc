#include "supervisor/stop_signals.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "common/check.h"
#include "common/log.h"

namespace switchyard::supervisor {
namespace {

constexpr Nanos kNever = std::numeric_limits<Nanos>::max();
constexpr Nanos kLongestPoll = 3600 * kSecond;
constexpr int kNotInTime = 1;  // the exit status

}  // namespace

StopSignals::StopSignals(UniqueFd signals, Options options)
    : signals_(std::move(signals)),
      options_(std::move(options)),
      gone_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  SY_CHECK(signals_.valid() && gone_.valid());
  thread_ = std::thread([this] { Run(); });
}

StopSignals::~StopSignals() {
  ::eventfd_write(gone_.get(), 1);
  thread_.join();
}

void StopSignals::Run() {
  ::pthread_setname_np(::pthread_self(), "signals");
  int heard = 0;
  Nanos end = kNever;
  while (true) {
    switch (Next(end)) {
      case Event::kNone:
        break;
      case Event::kSignal:
        if (++heard > 2) Exit();
        end = std::min(end, clock_.Now() + (heard == 1 ? options_.grace : 0) + options_.after);
        options_.heard(heard);
        break;
      case Event::kTimeOver:
        LogError("not everything has ended in time: the process does");
        Exit();
      case Event::kGone:
        return;
    }
  }
}

StopSignals::Event StopSignals::Next(Nanos until) {
  const Nanos now = clock_.Now();
  if (now >= until) return Event::kTimeOver;
  const Nanos wait = std::min(until - now, kLongestPoll);
  pollfd polled[] = {{gone_.get(), POLLIN, 0}, {signals_.get(), POLLIN, 0}};
  if (::poll(polled, 2, static_cast<int>((wait + kMillisecond - 1) / kMillisecond)) <= 0) {
    return Event::kNone;
  }
  if (polled[0].revents != 0) return Event::kGone;
  signalfd_siginfo signal;
  const bool one = ::read(signals_.get(), &signal, sizeof(signal)) == sizeof(signal);
  return one ? Event::kSignal : Event::kNone;
}

void StopSignals::Exit() {
  options_.clean_up();
  ::_exit(kNotInTime);
}

}  // namespace switchyard::supervisor
