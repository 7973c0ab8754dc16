#pragma once

// Checkpoints of real shapes with random weights, for measuring without a download.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace switchyard::bench {

// A dense decoder as config.json describes it.
struct ModelShape {
  std::string name;
  std::string model_type = "llama";  // or "qwen3"
  int64_t hidden = 0, layers = 0, q_heads = 0, kv_heads = 0, head_dim = 0, intermediate = 0;
  int64_t vocabulary = 0;
  int64_t max_positions = 131072;
  double rope_theta = 500000;
  bool tied_embeddings = false;
};

// The shapes that --shape names.
const std::vector<ModelShape>& KnownShapes();

int64_t CheckpointBytes(const ModelShape& shape);

// Writes config.json, bf16 safetensors in shards of at most `shard_bytes`, their index, and a
// tokenizer of single bytes. The same seed gives the same bytes, whatever the number of threads.
absl::Status WriteRandomCheckpoint(const ModelShape& shape, const std::string& dir,
                                   int64_t shard_bytes, uint64_t seed, int threads);

}  // namespace switchyard::bench
