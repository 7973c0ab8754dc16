#pragma once

// The forward pass of every family: one generic transformer over plain data.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "kernels/ops.h"
#include "worker/model/architecture.h"
#include "worker/model/weights.h"

namespace switchyard::worker {

// Activation buffers, in the fixed part of the lease.
struct Activations {
  void* residual = nullptr;         // act [T][H]
  void* q = nullptr;                // act [T][Hq D]
  void* attention = nullptr;        // act [T][Hq D]
  void* hidden = nullptr;           // act [T][H]: MoE's normed input, or a post-normed branch
  void* branch = nullptr;           // act [T][H]
  void* mlp = nullptr;              // act [T][max(I, Is)]
  int32_t* expert_ids = nullptr;    // [T][K]
  float* expert_weights = nullptr;  // [T][K]
  float* logits = nullptr;          // [logit_rows][V]
  kernels::Scratch scratch;
};

// The shapes of one model under its limits. Pure.
kernels::ScratchShape ScratchShapeOf(const Architecture& arch, int32_t rows, int32_t sequences,
                                     int32_t logit_rows, int32_t context);
// Bytes of all activation buffers, and their carving out of one allocation of that size.
int64_t ActivationBytes(const Architecture& arch, const kernels::Ops& ops,
                        const kernels::ScratchShape& shape);
Activations CarveActivations(const Architecture& arch, const kernels::Ops& ops,
                             const kernels::ScratchShape& shape, void* base);

// One step's inputs and outputs, all pointers on the device.
struct Step {
  kernels::StepRows rows;
  kernels::TokenTable tokens;
  std::span<const kernels::KvView> kv;  // [layers]
  // Rows that want logits, in tiles of `logit_rows` of the shape.
  int32_t logit_count = 0;
  const int32_t* logit_row = nullptr;              // [logit_count] index into the T rows
  const kernels::SamplingRow* sampling = nullptr;  // [logit_count]
  bool any_draw = false;
  bool any_logprobs = false;
  int32_t top_logprobs = 0;
  int32_t* drawn = nullptr;      // [logit_count]
  float* logprob = nullptr;      // [logit_count], if any_logprobs
  int32_t* top_ids = nullptr;    // [logit_count][top_logprobs]
  float* top_logprob = nullptr;  // [logit_count][top_logprobs]
};

class Transformer {
 public:
  // `before_layer(i)` is called before layer i is launched, and with i = layers before the head:
  // the place to wait for weights that are still on their way. It may fail (the copy did).
  using BeforeLayer = std::function<absl::Status(int32_t layer)>;

  // `ropes`: device copies of arch.ropes[i].inv_freq. Everything outlives the transformer.
  Transformer(const Architecture& arch, const Weights& weights, std::vector<const float*> ropes,
              kernels::Ops& ops, Activations activations, int32_t logit_rows);

  // Embedding, layers, and for the rows that ask for it: logits, Sample, Logprobs. Asynchronous.
  absl::Status Forward(const Step& step, const BeforeLayer& before_layer, kernels::Stream stream);

  // The same in two parts: Forward of the step without log-probabilities, then these. For steps
  // whose logits are one tile, so that all of them are still there.
  bool KeepsLogits(const Step& step) const { return step.logit_count <= logit_rows_; }
  absl::Status Logprobs(const Step& step, kernels::Stream stream) {
    return TileLogprobs(step, 0, step.logit_count, stream);
  }

 private:
  absl::Status Embed(const Step& step, kernels::Stream stream);
  absl::Status Layer(int32_t i, const Step& step, kernels::Stream stream);
  absl::Status AttentionBlock(int32_t i, const Step& step, kernels::Stream stream);
  absl::Status DenseMlp(int32_t i, const Step& step, kernels::Stream stream);
  absl::Status MixtureMlp(int32_t i, const Step& step, kernels::Stream stream);
  absl::Status Route(const LayerWeights& w, const Step& step, kernels::Stream stream);
  // A block ends with Project (or the experts) to BranchTarget, then AddBranch.
  void* BranchTarget() const;
  absl::Status Project(const void* x, const kernels::Matrix& w, const float* bias, const Step& step,
                       kernels::Stream stream);
  absl::Status AddBranch(const float* norm, const Step& step, kernels::Stream stream);
  absl::Status LogitTile(const Step& step, int32_t first, int32_t count, kernels::Stream stream);
  absl::Status TileLogprobs(const Step& step, int32_t first, int32_t count, kernels::Stream stream);

  const Architecture& arch_;
  const Weights& weights_;
  std::vector<const float*> ropes_;
  kernels::Ops& ops_;
  Activations act_;
  int32_t logit_rows_;
};

}  // namespace switchyard::worker
