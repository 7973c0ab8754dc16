#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/landlock.h"
#include "worker/options.h"

namespace switchyard::worker {

// Narrows what this process can do, as far as the kernel knows how: no new privileges, no core
// files, no inspection by others while it serves (prompts are in memory), and Landlock, unless the
// environment says SWITCHYARD_SANDBOX=off. Before any thread is started, and before a byte of the
// checkpoint is read. A worker that serves logs whether it is confined. An error: the kernel has
// Landlock, but does not let the checkpoint be read in it.
struct Sandbox {
  bool confined = false;
  std::string remark;  // for people, where that is not so, or not wholly; else empty
};
absl::StatusOr<Sandbox> EnterSandbox(const Options& options);

struct SandboxNeeds {
  std::string checkpoint = {};
  std::string cache_dir = {};     // empty: none
  std::string library_path = {};  // LD_LIBRARY_PATH: directories between colons
  bool gpu = false;
};

// What a worker may open. Reads the directories that it names: a checkpoint's files may be links to
// elsewhere, and a GPU's nodes are those that are there.
std::vector<PathRule> SandboxRules(const SandboxNeeds& needs);

}  // namespace switchyard::worker
