#include "worker/engine/fixed_memory.h"

#include <algorithm>

#include "common/checked.h"
#include "worker/engine/kv_store.h"

namespace switchyard::worker {
namespace {

constexpr uint64_t kAlignment = 256;

uint64_t Take(FixedLayout& layout, uint64_t bytes) {
  const uint64_t offset = layout.bytes;
  layout.bytes += RoundUp(bytes, kAlignment);
  return offset;
}

}  // namespace

FixedLayout PlanFixed(const Architecture& arch, const kernels::Ops& ops, const EngineLimits& limits,
                      const KvLayout& kv) {
  FixedLayout layout;
  // Decode rows never keep a whole chunk of prompt out of a step.
  layout.step.rows = std::max(limits.step_rows, limits.prefill_chunk + limits.max_sequences);
  layout.step.sequences = limits.max_sequences;
  layout.shape = ScratchShapeOf(arch, layout.step.rows, layout.step.sequences, limits.logit_rows,
                                limits.context_length);
  layout.shape.quantized = limits.quantized;
  // A token drawn at the last position of the context has its place too.
  layout.token_stride = static_cast<int32_t>(RoundUp(limits.context_length + 1, kBlockTokens));

  layout.activations = Take(layout, ActivationBytes(arch, ops, layout.shape));
  for (const RopeTable& rope : arch.ropes) {
    layout.ropes.push_back(Take(layout, rope.inv_freq.size() * sizeof(float)));
  }
  layout.token_staging =
      static_cast<uint64_t>(limits.max_sequences) * layout.token_stride * sizeof(int32_t);
  layout.tokens = Take(layout, layout.token_staging);
  layout.table_staging = KvStore::TableBytes(kv, limits.max_sequences);
  layout.tables = Take(layout, layout.table_staging);
  layout.step_buffers = Take(layout, StepBuffers::DeviceBytes(layout.step));
  return layout;
}

EngineBytes FixedBytesOf(const Architecture& arch, const kernels::Ops& ops,
                         const EngineLimits& limits) {
  // The tables' shape does not depend on the size of a page.
  const KvLayout kv = PlanKv(arch, limits.kv_dtype, limits.context_length, limits.max_sequences,
                             limits.prefill_chunk, kCpuPageBytes);
  const FixedLayout layout = PlanFixed(arch, ops, limits, kv);
  EngineBytes bytes;
  bytes.device = layout.bytes;
  bytes.host =
      RoundUp(layout.token_staging, kCpuPageBytes) +
      kStepsOnTheirWay *
          RoundUp(StepBuffers::DeviceBytes(layout.step) + layout.table_staging, kCpuPageBytes);
  return bytes;
}

}  // namespace switchyard::worker
