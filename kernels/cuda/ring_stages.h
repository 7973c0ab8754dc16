#pragma once

// How many stages the ring of a batched product of quantized weights has, and the shared memory
// that a block asks for.

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/choose.h"

namespace switchyard::kernels::cuda {

constexpr int kQuantStages = 4;  // at most

// Of a block that has `fixed` bytes of shared memory beside the ring: so many that two blocks fit
// on a multiprocessor, unless that leaves each with less than three.
inline int RingStages(int64_t stage_bytes, int64_t fixed, int capability) {
  constexpr int64_t kReserved = 1 << 10;  // of each block, beside what it asks for
  constexpr int64_t kEnough = 3, kMost = kQuantStages;
  const int64_t one = SharedLimit(capability), two = (one + kReserved) / 2 - kReserved;
  int64_t stages = (two - fixed) / stage_bytes;
  if (stages < kEnough) stages = (one - fixed) / stage_bytes;
  return static_cast<int>(std::min(stages, kMost));
}

// So much that no third block fits: blocks are as many as fit two by two, and where three do, some
// multiprocessors get three and others one.
inline int64_t RingShared(int stages, int64_t stage_bytes, int64_t fixed, int capability) {
  return std::max(stages * stage_bytes + fixed, SharedLimit(capability) / 3);
}

}  // namespace switchyard::kernels::cuda
