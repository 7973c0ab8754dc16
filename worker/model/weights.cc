#include "worker/model/weights.h"

namespace switchyard::worker {
namespace {

// The members of a layer by role: exactly one of the two is not null.
struct Place {
  kernels::Matrix* matrix = nullptr;
  const float** vector = nullptr;
};

Place LayerPlace(LayerWeights& layer, Role role) {
  switch (role) {
    case Role::kAttentionNorm:
      return {.vector = &layer.attention_norm};
    case Role::kQkv:
      return {.matrix = &layer.qkv};
    case Role::kQkvBias:
      return {.vector = &layer.qkv_bias};
    case Role::kQNorm:
      return {.vector = &layer.q_norm};
    case Role::kKNorm:
      return {.vector = &layer.k_norm};
    case Role::kSinks:
      return {.vector = &layer.sinks};
    case Role::kO:
      return {.matrix = &layer.o};
    case Role::kOBias:
      return {.vector = &layer.o_bias};
    case Role::kPostAttentionNorm:
      return {.vector = &layer.post_attention_norm};
    case Role::kMlpNorm:
      return {.vector = &layer.mlp_norm};
    case Role::kGateUp:
      return {.matrix = &layer.gate_up};
    case Role::kGateUpBias:
      return {.vector = &layer.gate_up_bias};
    case Role::kDown:
      return {.matrix = &layer.down};
    case Role::kDownBias:
      return {.vector = &layer.down_bias};
    case Role::kRouter:
      return {.matrix = &layer.router};
    case Role::kRouterBias:
      return {.vector = &layer.router_bias};
    case Role::kRouterCorrection:
      return {.vector = &layer.router_correction};
    case Role::kExpertsGateUp:
      return {.matrix = &layer.experts_gate_up};
    case Role::kExpertsGateUpBias:
      return {.vector = &layer.experts_gate_up_bias};
    case Role::kExpertsDown:
      return {.matrix = &layer.experts_down};
    case Role::kExpertsDownBias:
      return {.vector = &layer.experts_down_bias};
    case Role::kSharedGateUp:
      return {.matrix = &layer.shared_gate_up};
    case Role::kSharedDown:
      return {.matrix = &layer.shared_down};
    case Role::kPostMlpNorm:
      return {.vector = &layer.post_mlp_norm};
    default:
      return {};
  }
}

Place ModelPlace(Weights& weights, Role role) {
  switch (role) {
    case Role::kEmbedding:
      return {.matrix = &weights.embedding};
    case Role::kFinalNorm:
      return {.vector = &weights.final_norm};
    case Role::kHead:
      return {.matrix = &weights.head};
    default:
      return {};
  }
}

void BindMatrix(const ImageTensor& tensor, const void* data, kernels::Matrix& matrix) {
  switch (tensor.piece) {
    case Piece::kData:
      matrix.data = data;
      matrix.dtype = tensor.dtype;
      matrix.n = tensor.n;
      matrix.k = tensor.k;
      matrix.batch = tensor.batch;
      matrix.group = tensor.group;
      return;
    case Piece::kScales:
      matrix.scales = data;
      return;
    case Piece::kZeros:
      matrix.zeros = data;
      return;
  }
}

}  // namespace

Weights BindWeights(const Architecture& arch, const ImageLayout& layout, const std::byte* base) {
  Weights weights;
  weights.layers.resize(arch.layers.size());
  for (const ImageTensor& tensor : layout.tensors) {
    const Place place = tensor.layer < 0 ? ModelPlace(weights, tensor.role)
                                         : LayerPlace(weights.layers[tensor.layer], tensor.role);
    const std::byte* data = base + tensor.offset;
    if (place.matrix != nullptr) BindMatrix(tensor, data, *place.matrix);
    if (place.vector != nullptr) *place.vector = reinterpret_cast<const float*>(data);
  }
  if (arch.tied_embeddings) weights.head = weights.embedding;
  return weights;
}

}  // namespace switchyard::worker
