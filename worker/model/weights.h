#pragma once

#include <cstdint>
#include <vector>

#include "kernels/ops.h"
#include "worker/model/image.h"

namespace switchyard::worker {

// Where every weight lies once the image starts at `base` (the arena's address, which never
// changes).
struct LayerWeights {
  const float* attention_norm = nullptr;  // [H]
  kernels::Matrix qkv;                    // [(Hq + 2 Hkv) D][H]
  const float* qkv_bias = nullptr;
  const float* q_norm = nullptr;               // [D]
  const float* k_norm = nullptr;               // [D]
  const float* sinks = nullptr;                // [Hq]
  kernels::Matrix o;                           // [H][Hq D]
  const float* o_bias = nullptr;               // [H]
  const float* post_attention_norm = nullptr;  // [H]
  const float* mlp_norm = nullptr;             // [H]
  kernels::Matrix gate_up;                     // [2 I][H]
  const float* gate_up_bias = nullptr;
  kernels::Matrix down;  // [H][I]
  const float* down_bias = nullptr;
  kernels::Matrix router;                    // [E][H]
  const float* router_bias = nullptr;        // [E]
  const float* router_correction = nullptr;  // [E]
  kernels::Matrix experts_gate_up;           // [E][2 I][H]
  const float* experts_gate_up_bias = nullptr;
  kernels::Matrix experts_down;  // [E][H][I]
  const float* experts_down_bias = nullptr;
  kernels::Matrix shared_gate_up;        // [2 Is][H]
  kernels::Matrix shared_down;           // [H][Is]
  const float* post_mlp_norm = nullptr;  // [H]
};

struct Weights {
  kernels::Matrix embedding;  // [V][H]
  std::vector<LayerWeights> layers;
  const float* final_norm = nullptr;  // [H]
  kernels::Matrix head;               // [V][H]; the embedding where tied
};

Weights BindWeights(const Architecture& arch, const ImageLayout& layout, const std::byte* base);

}  // namespace switchyard::worker
