#pragma once

// A model loaded whole into host memory, with a plain KV cache: the shortest way from a checkpoint
// to log-probabilities. What the engine does with leases, blocks and batches is not here.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/image.h"
#include "worker/model/transformer.h"
#include "worker/model/weights.h"

namespace switchyard::worker {

// Consecutive positions of one sequence in a step.
struct Chunk {
  int32_t slot = 0;
  int32_t begin = 0;
  int32_t count = 0;
};

struct RowResult {
  int32_t drawn = -1;  // greedily, on rows at the end of a sequence
  float logprob = 0;   // of the token at the next position
  std::vector<int32_t> top_ids;
  std::vector<float> top_logprobs;

  bool operator==(const RowResult&) const = default;
};

class ModelHarness {
 public:
  static constexpr int32_t kTop = 5;

  static absl::StatusOr<std::unique_ptr<ModelHarness>> Load(const std::string& dir, int32_t slots,
                                                            int32_t context, int threads = 1);

  const Architecture& arch() const { return arch_; }
  const ImageLayout& layout() const { return layout_; }

  void SetPrompt(int32_t slot, const std::vector<int32_t>& ids);
  void SetToken(int32_t slot, int32_t position, int32_t id);
  // One step; results of all its rows, in order.
  absl::StatusOr<std::vector<RowResult>> Run(
      const std::vector<Chunk>& chunks, const Transformer::BeforeLayer& before_layer = nullptr);

 private:
  ModelHarness() = default;
  void MakeKv();

  Architecture arch_;
  ImageLayout layout_;
  std::vector<std::byte> image_;
  Weights weights_;
  std::unique_ptr<kernels::Ops> ops_;
  std::vector<std::byte> activations_;
  std::unique_ptr<Transformer> transformer_;
  int32_t slots_ = 0, context_ = 0;
  std::vector<int32_t> tokens_;         // [slots][context]
  std::vector<int32_t> prompt_length_;  // [slots]
  std::vector<int32_t> block_table_;
  std::vector<std::byte> kv_;
  std::vector<kernels::KvView> views_;  // [layers]
};

}  // namespace switchyard::worker
