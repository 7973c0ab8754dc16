#pragma once

// The shapes of real models, and the forms that a decode step of them is measured in. What changes
// neither the work nor the bytes of a step (rotary bases, scales, eps) is not here.

#include <cstdint>
#include <vector>

#include "kernels/ops.h"
#include "tests/gpu/bench_weights.h"

namespace switchyard::bench {

struct MixtureShape {
  int32_t experts = 0;  // 0: no layer is a mixture
  int32_t chosen = 0;
  int32_t inner = 0;         // of one expert
  int32_t shared_inner = 0;  // of the expert that every row takes; 0: there is none
  int32_t dense_layers = 0;  // in front of those that are mixtures
  kernels::Routing routing = kernels::Routing::kSoftmaxTopK;
  bool normalize = false;
  bool router_bias = false, correction = false, expert_bias = false;
};

struct Shape {
  int32_t layers = 0, hidden = 0, q_heads = 0, kv_heads = 0, head_dim = 0;
  int32_t rope_dim = 0;  // rotary elements of a head
  int32_t inner = 0;     // of a dense MLP; 0: no layer has one
  int32_t vocabulary = 0;
  kernels::Activation activation = kernels::Activation::kSilu;
  bool qkv_bias = false, o_bias = false, qk_norm = false, sinks = false;
  bool post_norms = false;  // norms after attention and MLP
  bool tied = false;        // the head is the embedding
  int32_t window = 0;       // 0: every layer sees all keys
  int32_t full_every = 1;   // with a window: of so many layers the last one sees all
  MixtureShape mixture = {};
};

int32_t WindowOf(const Shape& shape, int32_t layer);
int32_t WindowedLayers(const Shape& shape);
bool IsMixture(const Shape& shape, int32_t layer);
int32_t DenseLayers(const Shape& shape);

// Routers are float32 in every form, as they are in an image.
struct Forms {
  WeightFormat layers;  // attention, dense MLPs, shared experts
  WeightFormat experts;
  WeightFormat head;  // and embedding
};
constexpr Forms AllOf(const WeightFormat& format) { return {format, format, format}; }

extern const Shape kLlama8B;

// A model of deploy/96gb in one form.
struct DeployedShape {
  const char* name;
  const char* form;
  Shape shape;
  Forms forms;
  int32_t aim;  // per cent of the read limit
};
const std::vector<DeployedShape>& DeployedShapes();

}  // namespace switchyard::bench
