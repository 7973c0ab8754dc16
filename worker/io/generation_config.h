#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace switchyard::worker {

// How a checkpoint's author wants it sampled: generation_config.json. Values that the file leaves
// out are off. `do_sample: false` asks for greedy decoding: temperature 0.
struct GenerationConfig {
  std::vector<int32_t> eos_ids;
  int32_t bos_id = -1;  // -1: none
  float temperature = 1;
  int32_t top_k = 0;  // 0: off
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
};

// `name` opens every message.
absl::StatusOr<GenerationConfig> ParseGenerationConfig(const nlohmann::json& json,
                                                       const std::string& name);

// Takes `eos_token_id` (a number, a list or null) and `bos_token_id` from `json` where `config` has
// none yet.
absl::Status ReadSpecialIds(const nlohmann::json& json, const std::string& name,
                            GenerationConfig& config);

}  // namespace switchyard::worker
