#pragma once

#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard::supervisor {

struct SpawnSpec {
  std::string program;            // a path
  std::vector<std::string> args;  // without argv[0]
  // Ours, and the number it gets in the child: 1, 2, 3, ... without a gap. Standard input is
  // /dev/null; every other descriptor is closed.
  std::vector<std::pair<int, int>> fds;
};

// Starts a child in a process group of its own (a Ctrl-C on our terminal is ours to handle), with
// default signal dispositions and no more environment than it needs.
absl::StatusOr<pid_t> Spawn(const SpawnSpec& spec);

// The worker's program: $SWITCHYARD_WORKER, else `switchyard-worker` beside our own binary.
std::string WorkerProgram();

}  // namespace switchyard::supervisor
