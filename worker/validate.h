#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "switchyard/v1/inference.pb.h"
#include "worker/engine/engine.h"
#include "worker/io/generation_config.h"
#include "worker/tokenizer/tokenizer.h"

namespace switchyard::worker {

// What a request is held against.
struct RequestLimits {
  int32_t context_length = 0;
  int32_t vocabulary = 0;
  GenerationConfig defaults;  // of what a request leaves unset, and the end-of-sequence ids
};

// A request that the engine can run.
struct ValidRequest {
  SequenceRequest sequence;       // id and times are the caller's to set
  std::vector<std::string> stop;  // stop strings
};

// Tokenizes and checks. INVALID_ARGUMENT names the field, the value and the bound.
absl::StatusOr<ValidRequest> ValidateRequest(const v1::GenerateRequest& request,
                                             const Tokenizer& tokenizer,
                                             const RequestLimits& limits);

}  // namespace switchyard::worker
