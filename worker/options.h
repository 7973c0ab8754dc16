#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "switchyard/v1/model.pb.h"

namespace switchyard::worker {

enum class Mode { kPlan, kServe };

// The command line of switchyard-worker.
struct Options {
  Mode mode = Mode::kPlan;
  v1::Model model;  // --model-text, parsed
  std::string device = "cpu";
  std::string cache_dir;       // empty: images are not kept
  uint64_t cache_bytes = 0;    // that they take at most; kImageCacheBytes unless it is said
  int threads = 0;             // at least 1 once parsed; DefaultThreads unless it is said
  bool json = false;           // --plan: JSON instead of text format
  bool needs_weights = false;  // --plan: without weights there is no plan
  int32_t supervisor_pid = 0;  // 0: not known; a planner has a death pipe where it is
};

// Threads of the `cpu` device's ops. From four cores on one is left to the thread that talks to the
// supervisor: on 16 cores, a step of 16 threads waited a millisecond for the one whose core that
// thread took.
int DefaultThreads(int cores);

// INVALID_ARGUMENT with one line for standard error: wrong usage.
absl::StatusOr<Options> ParseOptions(int argc, const char* const* argv);

const char* Usage();

}  // namespace switchyard::worker
