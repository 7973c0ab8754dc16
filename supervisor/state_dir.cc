#include "supervisor/state_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/status_macros.h"

namespace switchyard::supervisor {
namespace {

std::string Environment(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : otherwise;
}

std::string Home() { return Environment("HOME", "/tmp"); }

std::string ReadOwner(int lock) {
  char text[32] = {};
  const ssize_t got = ::pread(lock, text, sizeof(text) - 1, 0);
  std::string pid(absl::StripAsciiWhitespace(got > 0 ? text : ""));
  return pid.empty() ? "unknown" : pid;
}

// The name of a temporary directory can be guessed, and /tmp is everyone's: whoever made it first
// would own our socket, and choose what is removed at the end.
absl::Status CheckOurs(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return ErrnoStatus(path.c_str());
  if (S_ISDIR(info.st_mode) && info.st_uid == ::geteuid() && (info.st_mode & 077) == 0) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat(path, " is not a directory of ours alone: remove it, or give --state-dir"));
}

}  // namespace

std::string DefaultStateDir(const HostPort& listen) {
  if (listen.port == 0) {
    return absl::StrCat(Environment("XDG_RUNTIME_DIR", "/tmp"), "/switchyard-", ::getpid());
  }
  return absl::StrCat(Environment("XDG_STATE_HOME", Home() + "/.local/state"), "/switchyard/",
                      listen.host, "_", listen.port);
}

std::string DefaultCacheDir() {
  return Environment("XDG_CACHE_HOME", Home() + "/.cache") + "/switchyard";
}

absl::StatusOr<std::unique_ptr<StateDir>> StateDir::Lock(const std::string& path, bool temporary) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoStatus(absl::StrCat("creating the state directory ", path).c_str());
  }
  if (temporary) RETURN_IF_ERROR(CheckOurs(path));
  const std::string lock_path = path + "/lock";
  UniqueFd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock.valid()) return ErrnoStatus(absl::StrCat("opening ", lock_path).c_str());
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return absl::AlreadyExistsError(absl::StrCat(
        "another supervisor, process ", ReadOwner(lock.get()), ", uses the state directory ", path,
        ": stop it, or give this one another --listen or --state-dir"));
  }
  const std::string pid = absl::StrCat(::getpid(), "\n");
  if (::ftruncate(lock.get(), 0) != 0 ||
      ::pwrite(lock.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    return ErrnoStatus(absl::StrCat("writing ", lock_path).c_str());
  }
  return std::unique_ptr<StateDir>(new StateDir(path, temporary, std::move(lock)));
}

// The lock file itself stays, but in a temporary directory: whoever opened it meanwhile would hold
// a lock that the next one cannot see.
StateDir::~StateDir() {
  ::unlink(socket_path().c_str());
  if (!temporary_) return;
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

}  // namespace switchyard::supervisor
