#pragma once

// A golden checkpoint after a change, planned and filled: for tests of what is refused.

#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "tests/worker/io/checkpoint_writer.h"
#include "worker/model/image.h"

namespace switchyard::worker {

using Tensors = std::vector<WrittenTensor>;

struct Change {
  std::function<void(nlohmann::json&)> config = {};
  std::function<void(Tensors&)> tensors = {};
};

// `name`: a folder below tests/golden, of one file.
absl::StatusOr<ImageLayout> FillChanged(const std::string& name, const Change& change,
                                        Quantize quantize = Quantize::kAsStored);

// The tensor of this name, which must be there.
WrittenTensor& Find(Tensors& tensors, const std::string& name);

}  // namespace switchyard::worker
