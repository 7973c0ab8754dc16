#include "worker/sandbox.h"

#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <string_view>
#include <system_error>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/log.h"

namespace switchyard::worker {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostLinks = 8192;  // of a checkpoint, which has at most 4,096 shards

// A kernel that refuses any of it is no reason not to serve.
void NarrowProcess(Mode mode) {
  ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  // A planner knows no secrets, and the leak sanitizer looks into it at its end.
  if (mode == Mode::kServe) ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
}

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

// Files that are links: a download of Hugging Face's has them into a directory beside. A link that
// leads nowhere is not there for whoever opens it either.
void AddCheckpoint(const std::string& directory, std::vector<PathRule>* rules) {
  rules->push_back({directory, PathUse::kRead, /*needed=*/true});
  std::error_code unreadable;
  size_t links = 0;
  for (fs::directory_iterator next(directory, unreadable);
       !unreadable && next != fs::directory_iterator() && links < kMostLinks;
       next.increment(unreadable)) {
    std::error_code error;
    if (!next->is_symlink(error) || error) continue;
    const fs::path target = fs::canonical(next->path(), error);
    if (error || !fs::is_regular_file(target, error)) continue;
    rules->push_back({target.string(), PathUse::kRead});
    ++links;
  }
}

// Shared libraries, ours and those that the GPU's driver loads when it is first used. Nothing of it
// can be run. A rule holds for what a link leads to: the CUDA Toolkit may be anywhere, and NixOS
// has the driver's libraries in its store.
void AddLibraries(const std::string& library_path, std::vector<PathRule>* rules) {
  for (const char* path :
       {"/usr", "/lib", "/lib64", "/usr/local/cuda", "/opt/cuda", "/opt/nvidia", "/nix/store",
        "/run/opengl-driver", "/etc/ld.so.cache", "/etc/localtime"}) {
    rules->push_back({path, PathUse::kRead});
  }
  for (const absl::string_view directory : absl::StrSplit(library_path, ':', absl::SkipEmpty())) {
    rules->push_back({std::string(directory), PathUse::kRead});
  }
}

// What the C library, gRPC and the driver ask of the machine: its memory, cores and control group,
// the driver's parameters. Others' environment and memory stay closed: Landlock sees to that.
void AddMachine(std::vector<PathRule>* rules) {
  for (const char* path : {"/proc", "/sys", "/dev/urandom", "/dev/random", "/dev/zero"}) {
    rules->push_back({path, PathUse::kRead});
  }
  rules->push_back({"/dev/null", PathUse::kDevice});
}

// All of them: which node is which GPU's is the driver's business, and it looks at each.
void AddGpu(std::vector<PathRule>* rules) {
  std::error_code unreadable;
  for (fs::directory_iterator next("/dev", unreadable);
       !unreadable && next != fs::directory_iterator(); next.increment(unreadable)) {
    const std::string path = next->path().string();
    if (absl::StartsWith(path, "/dev/nvidia")) rules->push_back({path, PathUse::kDevice});
  }
  // The driver names its threads, and more: without, cuInit fails ("OS call failed"; driver 580).
  rules->push_back({"/proc/self", PathUse::kOwn});
  rules->push_back({"/etc/nvidia", PathUse::kRead});
  // Kernels that had to be compiled for this GPU.
  const std::string compiled = Environment("CUDA_CACHE_PATH");
  if (!compiled.empty()) rules->push_back({compiled, PathUse::kKeep});
}

// The driver makes this node when it is used for the first time since the machine was started, and
// runs a program for that.
bool GpuNodesAreThere() {
  std::error_code error;
  return fs::exists("/dev/nvidia-uvm", error);
}

// That program is setuid, which comes to nothing without new privileges.
absl::Status GpuNodesAreMissing() {
  return absl::UnavailableError(absl::StrCat(
      "the GPU's driver has no /dev/nvidia-uvm yet, and must be free to make it",
      ::geteuid() == 0 ? ""
                       : ", which only a worker of root's can: run `nvidia-modprobe -u -c=0` "
                         "as root, at best when the machine starts"));
}

absl::StatusOr<Confinement> ConfineFor(const Options& options) {
  if (Environment("SWITCHYARD_SANDBOX") == "off") {
    return absl::CancelledError("it is turned off (--no-sandbox)");
  }
  SandboxNeeds needs;
  needs.checkpoint = options.model.checkpoint();
  needs.library_path = Environment("LD_LIBRARY_PATH");
  needs.gpu = options.device != "cpu";
  if (options.mode == Mode::kServe) {
    needs.cache_dir = options.cache_dir;
    if (needs.gpu && !GpuNodesAreThere()) return GpuNodesAreMissing();
    // A rule is for what is there.
    std::error_code error;
    if (!needs.cache_dir.empty()) fs::create_directories(needs.cache_dir, error);
  }
  return Confine(SandboxRules(needs));
}

}  // namespace

std::vector<PathRule> SandboxRules(const SandboxNeeds& needs) {
  std::vector<PathRule> rules;
  AddCheckpoint(needs.checkpoint, &rules);
  if (!needs.cache_dir.empty()) rules.push_back({needs.cache_dir, PathUse::kKeep});
  AddLibraries(needs.library_path, &rules);
  AddMachine(&rules);
  if (needs.gpu) AddGpu(&rules);
  return rules;
}

absl::StatusOr<Sandbox> EnterSandbox(const Options& options) {
  NarrowProcess(options.mode);
  const absl::StatusOr<Confinement> confinement = ConfineFor(options);
  if (absl::IsFailedPrecondition(confinement.status())) {
    return absl::FailedPreconditionError(absl::StrCat(
        "Landlock does not take a rule that the worker needs: ", confinement.status().message(),
        ". --no-sandbox does without it"));
  }
  Sandbox sandbox;
  sandbox.confined = confinement.ok();
  if (!sandbox.confined) {
    sandbox.remark = absl::StrCat("not confined: ", confinement.status().message());
  } else if (!confinement->left_out.empty()) {
    sandbox.remark = absl::StrCat("confined, and without what Landlock did not take: ",
                                  absl::StrJoin(confinement->left_out, "; "));
  }
  // A plan's standard error is why there is none; and its worker will tell.
  if (options.mode == Mode::kPlan) return sandbox;
  if (sandbox.confined) {
    LogInfo("sandbox: confined to its checkpoint by Landlock, version ", confinement->version);
  }
  if (!sandbox.remark.empty()) LogWarning("sandbox: ", sandbox.remark);
  return sandbox;
}

}  // namespace switchyard::worker
