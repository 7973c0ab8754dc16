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
  bool correction = false;  // e_score_correction_bias
  bool expert_bias = false;
};

struct LayerShape {
  int32_t window = 0;  // keys that a query sees, itself included; 0: all
  int32_t rope = 0;    // index into Architecture::ropes
  bool moe = false;    // else a dense MLP of Architecture::intermediate
};

// How a family's files name their tensors, where families differ. Read by the image's planner only.
struct TensorNames {
  // Before the text model's tensors; the first under which there is an embedding.
  std::vector<std::string> prefixes = {"model."};
  std::vector<std::string> heads = {"lm_head.weight"};
  // Norms of a layer; the post-norms where there are any.
  std::string post_attention_norm = {};
  std::string mlp_norm = "post_attention_layernorm";
  std::string post_mlp_norm = {};
  std::string router = "mlp.gate";
  // Experts are stored as [E][in][out], gate and up interleaved; else as [out][in] one by one.
  bool experts_transposed = false;
  bool norm_plus_one = false;  // norms mean 1 + w
  // Prefixes of tensors that are no part of the text model, to be skipped.
  std::vector<std::string> skipped = {};
  bool more_layers = false;  // layers beyond ours predict further tokens, and are skipped
};

struct Architecture {
  std::string family;  // row of the family table, for people and status only
  int32_t hidden = 0;
  int32_t q_heads = 0, kv_heads = 0, head_dim = 0;
  int32_t intermediate = 0;  // dense MLP; 0: no layer has one
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
  bool post_norms = false;  // norms after attention and MLP, before the residual is added
  bool tied_embeddings = false;
  MoeShape moe;  // experts 0: no layer is a mixture
  std::vector<RopeTable> ropes;
  std::vector<LayerShape> layers;
  TensorNames names;
};

// Parameters, counted from the shapes.
int64_t ParameterCount(const Architecture& arch);
// "llama, 5 layers, hidden 160, 1.8 M parameters"
std::string Describe(const Architecture& arch);

}  // namespace switchyard::worker
