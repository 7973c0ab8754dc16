#include "cli/interrupt.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <thread>
#include <utility>

#include "cli/outcome.h"

namespace switchyard::cli {

void OnInterrupt(std::function<void()> interrupted) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::thread([set, interrupted = std::move(interrupted)] {
    int signal = 0;
    ::sigwait(&set, &signal);
    interrupted();
    ::sigwait(&set, &signal);
    ::_exit(kInterrupted);
  }).detach();
}

}  // namespace switchyard::cli
