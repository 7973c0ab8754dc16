#pragma once

// A small model for FakeOps: architecture, image, master, and the oracle of what it says.

#include <cstddef>
#include <cstdint>
#include <vector>

#include "worker/engine/engine.h"
#include "worker/model/architecture.h"
#include "worker/model/image.h"

namespace switchyard::worker {

struct FakeModel {
  Architecture arch;
  ImageLayout image;
  std::vector<std::byte> master;
};

// Layers with these windows (0: full attention). Each layer has a chunk of the image to itself.
FakeModel MakeFakeModel(const std::vector<int32_t>& windows);

struct FakeAnswer {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;         // of the tokens
  std::vector<float> prompt_logprobs;  // of prompt tokens 1, 2, ...
};
// What the model says to a request, computed without slots, blocks, chunks or batches.
FakeAnswer FakeAnswerOf(const FakeModel& model, const SequenceRequest& request);

}  // namespace switchyard::worker
