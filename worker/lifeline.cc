#include "worker/lifeline.h"

#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <thread>
#include <utility>

#include "common/log.h"

namespace switchyard::worker {

void BindToSupervisor(int32_t supervisor_pid) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (supervisor_pid > 0 && ::getppid() != supervisor_pid) {
    LogError("the supervisor died before the worker had started");
    ::_exit(1);
  }
}

void WatchDeathPipe(UniqueFd death_pipe) {
  std::thread([fd = std::move(death_pipe)] {
    char unused;
    while (true) {
      const ssize_t got = ::read(fd.get(), &unused, 1);
      if (got > 0 || (got < 0 && errno == EINTR)) continue;
      ::_exit(0);  // no destructors: other threads are in the middle of their work
    }
  }).detach();
}

}  // namespace switchyard::worker
