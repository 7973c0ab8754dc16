#pragma once

// The fixed part of the lease as one allocation, and what lies where in it. Pure.

#include <cstdint>
#include <vector>

#include "worker/engine/engine.h"
#include "worker/engine/kv_layout.h"
#include "worker/engine/step_buffers.h"
#include "worker/model/transformer.h"

namespace switchyard::worker {

struct FixedLayout {
  StepCapacity step;  // the largest step
  kernels::ScratchShape shape;
  int32_t token_stride = 0;     // of the token table
  uint64_t activations = 0;     // offsets
  std::vector<uint64_t> ropes;  // of each rotary base's frequencies
  uint64_t tokens = 0;
  uint64_t tables = 0;
  uint64_t step_buffers = 0;
  uint64_t bytes = 0;  // in all
  // On the host, in buffers of their own: what is copied to and from these.
  uint64_t token_staging = 0;
  uint64_t table_staging = 0;  // of each of the two steps, behind its inputs and outputs
};

FixedLayout PlanFixed(const Architecture& arch, const kernels::Ops& ops, const EngineLimits& limits,
                      const KvLayout& kv);

}  // namespace switchyard::worker
