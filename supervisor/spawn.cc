#include "supervisor/spawn.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/unique_fd.h"

extern char** environ;

namespace switchyard::supervisor {
namespace {

// A variable that a worker needs. Everything else (credentials among it, and HOME, where a worker
// has nothing to do) stays here.
bool IsForWorkers(const char* variable) {
  static const char* const kNames[] = {
      "PATH=",             // $SWITCHYARD_WORKER may be a script
      "LD_LIBRARY_PATH=",  // where a bundle keeps its libraries, and containers the driver's
      "SWITCHYARD_SANDBOX=",
      "ASAN_OPTIONS=",
      "UBSAN_OPTIONS=",
      "TSAN_OPTIONS="};
  // Which GPUs there are and how they are set up, as drivers and containers read; what tests tell
  // the worker that stands in for ours.
  static const char* const kFamilies[] = {"CUDA_", "NVIDIA_", "SWITCHYARD_FAKE_"};
  auto starts = [&](const char* prefix) { return absl::StartsWith(variable, prefix); };
  return std::any_of(std::begin(kNames), std::end(kNames), starts) ||
         std::any_of(std::begin(kFamilies), std::end(kFamilies), starts);
}

std::vector<char*> WorkerEnvironment() {
  std::vector<char*> result;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (IsForWorkers(*variable)) result.push_back(*variable);
  }
  result.push_back(nullptr);
  return result;
}

// posix_spawn's attributes and file actions, destroyed with the object.
class Actions {
 public:
  Actions() {
    posix_spawn_file_actions_init(&files_);
    posix_spawnattr_init(&attributes_);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    posix_spawnattr_setpgroup(&attributes_, 0);
    posix_spawnattr_setflags(
        &attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  }
  ~Actions() {
    posix_spawn_file_actions_destroy(&files_);
    posix_spawnattr_destroy(&attributes_);
  }

  // The sources are moved out of the way of the targets first: a source might have a target's
  // number.
  absl::Status AddFds(const std::vector<std::pair<int, int>>& fds) {
    posix_spawn_file_actions_addopen(&files_, 0, "/dev/null", O_RDONLY, 0);
    int next = 1;
    for (auto [source, target] : fds) {
      SY_CHECK(target == next++);
      UniqueFd moved(::fcntl(source, F_DUPFD_CLOEXEC, 64));
      if (!moved.valid()) return ErrnoStatus("duplicating a descriptor for a child process");
      posix_spawn_file_actions_adddup2(&files_, moved.get(), target);
      moved_.push_back(std::move(moved));
    }
    posix_spawn_file_actions_addclosefrom_np(&files_, next);
    return absl::OkStatus();
  }

  const posix_spawn_file_actions_t* files() const { return &files_; }
  const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  posix_spawn_file_actions_t files_;
  posix_spawnattr_t attributes_;
  std::vector<UniqueFd> moved_;
};

}  // namespace

absl::StatusOr<pid_t> Spawn(const SpawnSpec& spec) {
  Actions actions;
  if (absl::Status status = actions.AddFds(spec.fds); !status.ok()) return status;

  std::vector<char*> argv;
  argv.push_back(const_cast<char*>(spec.program.c_str()));
  for (const std::string& arg : spec.args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  std::vector<char*> environment = WorkerEnvironment();

  pid_t pid = -1;
  const int error = ::posix_spawn(&pid, spec.program.c_str(), actions.files(), actions.attributes(),
                                  argv.data(), environment.data());
  if (error != 0) return absl::ErrnoToStatus(error, absl::StrCat("starting ", spec.program));
  return pid;
}

std::string WorkerProgram() {
  if (const char* program = std::getenv("SWITCHYARD_WORKER"); program != nullptr && *program) {
    return program;
  }
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return "switchyard-worker";
  return (self.parent_path() / "switchyard-worker").string();
}

}  // namespace switchyard::supervisor
