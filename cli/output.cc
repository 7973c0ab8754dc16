#include "cli/output.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "cli/outcome.h"

namespace switchyard::cli {
namespace {

int write_errno = 0;  // of the first write that failed

// What a program was started with has no FD_CLOEXEC: with it, the descriptor is one that a library
// opened before main().
bool Inherited(int fd) {
  const int flags = ::fcntl(fd, F_GETFD);
  return flags >= 0 && (flags & FD_CLOEXEC) == 0;
}

}  // namespace

void HoldStandardDescriptors(char** argv) {
  // Each fails at what it is for, but for standard error, which is nobody's then.
  constexpr int kModes[] = {O_WRONLY, O_RDONLY, O_WRONLY};
  bool all = true;
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (Inherited(fd)) continue;
    all = false;
    const int null = ::open("/dev/null", kModes[fd]);
    if (null < 0) return;  // there is nothing to hold them with
    if (null != fd) {
      ::dup2(null, fd);
      ::close(null);
    }
  }
  if (!all) ::execv("/proc/self/exe", argv);
}

bool Print(std::string_view text) {
  if (write_errno != 0) return false;
  errno = 0;
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (std::fflush(stdout) != 0 || !written) write_errno = errno != 0 ? errno : EIO;
  return write_errno == 0;
}

bool OutputFailed() { return write_errno != 0; }

int FinishOutput(int code) {
  if (write_errno == 0) return code;
  std::fprintf(stderr, "switchyard: cannot write to standard output: %s\n",
               std::strerror(write_errno));
  return kRefused;
}

}  // namespace switchyard::cli
