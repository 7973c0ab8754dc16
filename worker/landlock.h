#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard::worker {

// Landlock, by which a process gives up for itself what the kernel's user may do otherwise:
// https://docs.kernel.org/userspace-api/landlock.html

enum class PathUse {
  kRead,    // files, and what directories have
  kKeep,    // a directory in which files and directories are made, renamed, read and removed
  kDevice,  // nodes that are opened for writing, and take ioctl
  kOwn,     // files that are there and are written anew
};

// What lies at `path` and beneath it. A path that is not there allows nothing.
struct PathRule {
  std::string path;
  PathUse use;
  bool needed = false;  // there is no use in being confined without it
  friend bool operator==(const PathRule&, const PathRule&) = default;
};

// What is forbidden unless a rule allows it; bits of linux/landlock.h.
struct LandlockRights {
  uint64_t files = 0;
  uint64_t network = 0;
  uint64_t scopes = 0;
};

// All that version `abi` of the kernel's interface knows.
LandlockRights HandledRights(int abi);
// What a rule allows: no more than `abi` knows, and than a file has if it is no directory.
uint64_t AllowedRights(PathUse use, bool directory, int abi);

// The version that this kernel has. UNIMPLEMENTED: none, or it is turned off.
absl::StatusOr<int> LandlockVersion();

// From now on this thread, and those that it starts, can open only what the rules allow, run no
// program, reach nothing over TCP, and signal no process outside. Needs no_new_privs. A rule that
// the kernel does not take allows nothing, and is told. FAILED_PRECONDITION, and nothing is
// confined: it was a needed one.
struct Confinement {
  int version = 0;                    // in force
  std::vector<std::string> left_out;  // which rules, and why
};
absl::StatusOr<Confinement> Confine(const std::vector<PathRule>& rules);

}  // namespace switchyard::worker
