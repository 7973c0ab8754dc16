#pragma once

// Which tensors an image has, in execution order, and which tensors of a checkpoint they are made
// of. Shapes and names only: whether the checkpoint really has them is the planner's question.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "worker/model/architecture.h"
#include "worker/model/image.h"

namespace switchyard::worker {

// One tensor of the checkpoint, that becomes a consecutive part of one tensor of the image.
struct SlotPart {
  std::string tensor;
  std::vector<int64_t> shape;  // as the checkpoint must have it
};

struct ImageSlot {
  Role role = Role::kEmbedding;
  int32_t layer = -1;
  int64_t batch = 1, n = 1, k = 1;
  bool f32 = false;  // small, and kept in float32: norms, biases, sinks, routers
  // kCopy: as it is, or converted where types differ.
  Transform transform = Transform::kCopy;
  std::vector<SlotPart> parts;
};

// True if the checkpoint has a tensor of this name: some layers may be stored in two ways.
using HasTensor = std::function<bool(const std::string& name)>;

// `prefix` stands before the text model's tensors: "model.".
std::vector<ImageSlot> EmbeddingSlots(const Architecture& arch, const std::string& prefix);
std::vector<ImageSlot> LayerSlots(const Architecture& arch, int32_t layer,
                                  const std::string& prefix, const HasTensor& has);
// Final norm, and the head called `head` unless the embedding serves as one.
std::vector<ImageSlot> HeadSlots(const Architecture& arch, const std::string& prefix,
                                 const std::string& head);

}  // namespace switchyard::worker
