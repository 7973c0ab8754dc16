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

constexpr int kMostTries = 100;

std::string Environment(const char* name, const std::string& otherwise) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : otherwise;
}

// `variable`, else `below` the home directory. `flag` names the directory otherwise.
absl::StatusOr<std::string> HomeOf(const char* variable, const char* below, const char* flag) {
  const std::string set = Environment(variable, "");
  if (!set.empty()) return set;
  const std::string home = Environment("HOME", "");
  if (!home.empty()) return absl::StrCat(home, "/", below);
  return absl::FailedPreconditionError(
      absl::StrCat("neither HOME nor ", variable, " is set: give ", flag));
}

std::string ReadOwner(int lock) {
  char text[32] = {};
  const ssize_t got = ::pread(lock, text, sizeof(text) - 1, 0);
  std::string pid(absl::StripAsciiWhitespace(got > 0 ? text : ""));
  return pid.empty() ? "unknown" : pid;
}

std::string LockPath(const std::string& directory) { return directory + "/lock"; }

// Whether `path` still names the file that `fd` is open on. A supervisor that ends removes its lock
// file: whoever had opened it before locks a file that nobody else can find.
bool IsAt(int fd, const std::string& path) {
  struct stat ours {
  }, there{};
  return ::fstat(fd, &ours) == 0 && ::lstat(path.c_str(), &there) == 0 &&
         ours.st_dev == there.st_dev && ours.st_ino == there.st_ino;
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

absl::StatusOr<std::string> DefaultStateDir(const HostPort& listen) {
  if (listen.port == 0) {
    return absl::StrCat(Environment("XDG_RUNTIME_DIR", "/tmp"), "/switchyard-", ::getpid());
  }
  ASSIGN_OR_RETURN(const std::string home, HomeOf("XDG_STATE_HOME", ".local/state", "--state-dir"));
  return absl::StrCat(home, "/switchyard/", listen.host, "_", listen.port);
}

absl::StatusOr<std::string> DefaultCacheDir() {
  ASSIGN_OR_RETURN(const std::string home, HomeOf("XDG_CACHE_HOME", ".cache", "--cache-dir"));
  return home + "/switchyard";
}

absl::StatusOr<std::unique_ptr<StateDir>> StateDir::Lock(const std::string& path, bool temporary) {
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  // Another supervisor that ends may take the lock file or the directory from under us at any
  // point; whoever tries again finds them gone, and makes new ones.
  bool created = false;
  for (int i = 0; i < kMostTries; ++i) {
    ASSIGN_OR_RETURN(UniqueFd lock, TryLock(path, temporary, &created));
    if (!lock.valid()) continue;
    return std::unique_ptr<StateDir>(new StateDir(path, temporary || created, std::move(lock)));
  }
  return absl::UnavailableError(absl::StrCat("the state directory ", path,
                                             " comes and goes: do others start and stop there?"));
}

// An invalid descriptor: what was locked is not there any more.
absl::StatusOr<UniqueFd> StateDir::TryLock(const std::string& path, bool temporary, bool* created) {
  if (::mkdir(path.c_str(), 0700) == 0) {
    *created = true;
  } else if (errno != EEXIST) {
    return ErrnoStatus(absl::StrCat("creating the state directory ", path).c_str());
  }
  if (temporary) {
    const absl::Status ours = CheckOurs(path);
    if (absl::IsNotFound(ours)) return UniqueFd();
    RETURN_IF_ERROR(ours);
  }
  const std::string lock_path = LockPath(path);
  UniqueFd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock.valid() && errno == ENOENT) return UniqueFd();
  if (!lock.valid()) return ErrnoStatus(absl::StrCat("opening ", lock_path).c_str());
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return absl::AlreadyExistsError(absl::StrCat(
        "another supervisor, process ", ReadOwner(lock.get()), ", uses the state directory ", path,
        ": stop it, or give this one another --listen or --state-dir"));
  }
  if (!IsAt(lock.get(), lock_path)) return UniqueFd();
  const std::string pid = absl::StrCat(::getpid(), "\n");
  if (::ftruncate(lock.get(), 0) != 0 ||
      ::pwrite(lock.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    return ErrnoStatus(absl::StrCat("writing ", lock_path).c_str());
  }
  return lock;
}

// The lock file goes last of what is ours, and while we hold its lock: from then on another may
// lock a new one, and everything in the directory is that one's.
void StateDir::Remove() const {
  ::unlink(socket_path().c_str());
  ::unlink(LockPath(path_).c_str());
  if (ours_) ::rmdir(path_.c_str());  // fails if anything is in it
}

}  // namespace switchyard::supervisor
