#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "common/unique_fd.h"
#include "supervisor/listen.h"

namespace switchyard::supervisor {

// ${XDG_STATE_HOME:-~/.local/state}/switchyard/<host>_<port>. Port 0 has no name before it is
// listened on: a directory of this process's own under ${XDG_RUNTIME_DIR:-/tmp}.
// FAILED_PRECONDITION without a HOME: what is everyone's may be another user's already.
absl::StatusOr<std::string> DefaultStateDir(const HostPort& listen);
// ${XDG_CACHE_HOME:-~/.cache}/switchyard; the same without a HOME.
absl::StatusOr<std::string> DefaultCacheDir();

// The directory that holds the lock and the Unix socket. Locked as long as the object lives; the
// lock is the process's, and the system drops it with the process, however it ends.
class StateDir {
 public:
  // ALREADY_EXISTS, with the pid, if another supervisor has it. Creates the directory (0700).
  static absl::StatusOr<std::unique_ptr<StateDir>> Lock(const std::string& path, bool temporary);
  ~StateDir() { Remove(); }
  // Removes the socket and the lock, and the directory if it is temporary or Lock created it, and
  // nothing else is in it: on any thread, just before the process ends.
  void Remove() const;

  const std::string& path() const { return path_; }
  std::string socket_path() const { return path_ + "/switchyard.sock"; }

 private:
  StateDir(std::string path, bool ours, UniqueFd lock)
      : path_(std::move(path)), ours_(ours), lock_(std::move(lock)) {}
  static absl::StatusOr<UniqueFd> TryLock(const std::string& path, bool temporary, bool* created);

  std::string path_;
  bool ours_;
  UniqueFd lock_;
};

}  // namespace switchyard::supervisor
