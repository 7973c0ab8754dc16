#include "worker/lifeline.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <thread>
#include <utility>

#include "common/log.h"

namespace switchyard::worker {
namespace {

// Hardening that costs nothing; a kernel that refuses any of it is no reason not to serve.
void NarrowProcess() {
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
}

}  // namespace

void BindToSupervisor(int32_t supervisor_pid) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (supervisor_pid > 0 && ::getppid() != supervisor_pid) {
    LogError("the supervisor died before the worker had started");
    ::_exit(1);
  }
  NarrowProcess();
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
