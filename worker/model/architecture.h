#pragma once

// What a model is, as plain data: everything that the forward pass needs to know, and nothing that
// names a family. Filled from config.json by the family table (families.h).

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace switchyard::worker {

// One rotary base. Layers name one by index.
struct RopeTable {
  int32_t dim = 0;              // rotary elements of a head; 0: none
  float scale = 1.0f;           // attention factor
  std::vector<float> inv_freq;  // [dim / 2]
};

struct MoeShape {
  int32_t experts = 0;
  int32_t chosen = 0;
  int32_t intermediate = 0;         // of one expert
  int32_t shared_intermediate = 0;  // of the shared expert; 0: none
  kernels::Routing routing = kernels::Routing::kSoftmaxTopK;
  int32_t groups = 1, best_groups = 1;
  bool normalize = false;
  float scale = 1.0f;
  bool router_bias = false;
  bool correction = false;    // e_score_correction_bias
  bool expert_bias = false;
};

struct LayerShape {
  int32_t window = 0;        // keys that a query sees, itself included; 0: all
  int32_t rope = 0;          // index into Architecture::ropes
  bool moe = false;          // else a dense MLP of Architecture::intermediate
};

struct Architecture {
  std::string family;        // row of the family table, for people and status only
  int32_t hidden = 0;
  int32_t q_heads = 0, kv_heads = 0, head_dim = 0;
  int32_t intermediate = 0;  // dense MLP
  int32_t vocabulary = 0;
  int32_t max_positions = 0;
  float norm_eps = 0;
  float embedding_scale = 1.0f;
  float attention_scale = 0;
  float logit_softcap = 0;
  kernels::Activation activation = kernels::Activation::kSilu;
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  bool qk_norm = false;
  bool sinks = false;
  bool post_norms = false;   // norms after attention and MLP, before the residual is added
  bool tied_embeddings = false;
  MoeShape moe;              // experts 0: no layer is a mixture
  std::vector<RopeTable> ropes;
  std::vector<LayerShape> layers;
};

// Parameters, counted from the shapes.
int64_t ParameterCount(const Architecture& arch);
// "llama, 5 layers, hidden 160, 1.8 M parameters"
std::string Describe(const Architecture& arch);

}  // namespace switchyard::worker
