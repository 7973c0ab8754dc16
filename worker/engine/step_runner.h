#pragma once

// Launches steps on the device and reads what came of them.

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/device/device.h"
#include "worker/device/residency.h"
#include "worker/engine/decode_graphs.h"
#include "worker/engine/fixed_memory.h"
#include "worker/engine/kv_store.h"
#include "worker/engine/sequence.h"
#include "worker/engine/step_buffers.h"
#include "worker/model/transformer.h"
#include "worker/model/weights.h"

namespace switchyard::worker {

// Rows [first, end) of one sequence in a step. The last draws a token if `draws`.
struct SequenceRows {
  std::shared_ptr<Sequence> sequence;
  int32_t first = 0, end = 0;
  bool draws = false;
  int32_t score_begin = 0,
          score_end = 0;  // prompt rows whose next token's log-probability is wanted
  int32_t logits = 0;     // index of its first logit row
};

// A step on its way.
struct Launched {
  StepBuffers* buffers = nullptr;
  std::vector<SequenceRows> rows;
  int32_t step_rows = 0;
  int32_t decode_size = 0;  // rows with padding, of a decode step on a device that has graphs
  int32_t logit_rows = 0;
  bool logprobs = false;
  int32_t top = 0;
  Nanos started = 0;
  // What sequences that have come back were copied from, in front of this step: kept until it ends.
  std::vector<std::unique_ptr<PausedKv>> restored;
  std::unique_ptr<Event> done;
};

class StepRunner {
 public:
  static absl::StatusOr<std::unique_ptr<StepRunner>> Create(
      const Architecture& arch, const ImageLayout& image, const EngineLimits& limits,
      const KvLayout& kv, Device& device, kernels::Ops& ops, Residency& residency);

  KvStore& kv_store() { return *kv_store_; }
  const FixedLayout& fixed() const { return fixed_; }

  // Puts a sequence's tokens into its slot, for the steps launched after this.
  absl::Status UploadTokens(const Sequence& sequence);
  // At most two steps may be launched and not read. Waits, layer by layer, for weights that are
  // still on their way; before each it asks `before_wait`, if there is one, whether to. On an error
  // nothing of the step counts.
  using BeforeWait = std::function<absl::Status()>;
  absl::StatusOr<Launched> Launch(std::vector<SequenceRows> rows, KvCache& cache,
                                  const BeforeWait& before_wait);
  // The size that CaptureOne would capture now; 0: none.
  int32_t NextCapture() const;
  // Captures a graph, or tries to. Nothing is on its way, and nobody waits for a step.
  absl::Status CaptureOne(int32_t size);
  // Waits for the step; then `buffers->host_outputs()` holds its results until the set's next step.
  absl::Status Await(Launched& launched);

 private:
  StepRunner(const Architecture& arch, const ImageLayout& image, FixedLayout fixed, Device& device,
             Residency& residency)
      : arch_(arch),
        image_(image),
        fixed_(std::move(fixed)),
        device_(device),
        residency_(residency) {}

  absl::Status Allocate(const EngineLimits& limits, const KvLayout& kv, kernels::Ops& ops);
  absl::StatusOr<std::vector<const float*>> UploadRopes();
  bool Resident() const { return residency_.resident_bytes() == image_.bytes; }
  int32_t DecodeSizeOf(const Launched& launched) const;
  // Fills the host's side of the inputs, and the shape of the launched step.
  void Assemble(Launched& launched) const;
  Step StepAt(const StepInputs& in, const StepOutputs& out) const;  // with no rows
  Step DecodeStep(int32_t size) const;  // depends on nothing else: a graph is made of it
  Step DeviceStep(const Launched& launched) const;
  absl::Status Forward(const Launched& launched, const BeforeWait& before_wait);

  const Architecture& arch_;
  const ImageLayout& image_;
  const FixedLayout fixed_;
  Device& device_;
  Residency& residency_;
  std::unique_ptr<Buffer> memory_;
  std::unique_ptr<HostBuffer> token_staging_;  // [slots][token_stride]
  std::unique_ptr<KvStore> kv_store_;
  std::array<std::unique_ptr<StepBuffers>, kStepsOnTheirWay> buffers_;
  size_t next_buffers_ = 0;
  Weights weights_;
  std::unique_ptr<Transformer> transformer_;
  std::unique_ptr<DecodeGraphs> graphs_;  // null where the device has none
};

}  // namespace switchyard::worker
