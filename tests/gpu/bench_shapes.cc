#include "tests/gpu/bench_shapes.h"

#include <algorithm>

namespace switchyard::bench {

using kernels::Activation;
using kernels::Routing;

int32_t WindowOf(const Shape& shape, int32_t layer) {
  return (layer + 1) % shape.full_every != 0 ? shape.window : 0;
}

int32_t WindowedLayers(const Shape& shape) {
  return shape.window > 0 ? shape.layers - shape.layers / shape.full_every : 0;
}

bool IsMixture(const Shape& shape, int32_t layer) {
  return shape.mixture.experts > 0 && layer >= shape.mixture.dense_layers;
}

int32_t DenseLayers(const Shape& shape) {
  return shape.mixture.experts > 0 ? std::min(shape.mixture.dense_layers, shape.layers)
                                   : shape.layers;
}

const Shape kLlama8B = {.layers = 32,
                        .hidden = 4096,
                        .q_heads = 32,
                        .kv_heads = 8,
                        .head_dim = 128,
                        .rope_dim = 128,
                        .inner = 14336,
                        .vocabulary = 128256};

// From here on as deploy/96gb/checkpoints/*/config.json and the worker's family table have them.
namespace {

constexpr Shape kLlama70B = {.layers = 80,
                             .hidden = 8192,
                             .q_heads = 64,
                             .kv_heads = 8,
                             .head_dim = 128,
                             .rope_dim = 128,
                             .inner = 28672,
                             .vocabulary = 128256};

constexpr Shape kQwen32B = {.layers = 64,
                            .hidden = 5120,
                            .q_heads = 64,
                            .kv_heads = 8,
                            .head_dim = 128,
                            .rope_dim = 128,
                            .inner = 25600,
                            .vocabulary = 151936,
                            .qk_norm = true};

constexpr Shape kQwen30BA3B = {.layers = 48,
                               .hidden = 2048,
                               .q_heads = 32,
                               .kv_heads = 4,
                               .head_dim = 128,
                               .rope_dim = 128,
                               .vocabulary = 151936,
                               .qk_norm = true,
                               .mixture = {.experts = 128,
                                           .chosen = 8,
                                           .inner = 768,
                                           .routing = Routing::kSoftmaxTopK,
                                           .normalize = true}};

constexpr Shape kGemma27B = {.layers = 62,
                             .hidden = 5376,
                             .q_heads = 32,
                             .kv_heads = 16,
                             .head_dim = 128,
                             .rope_dim = 128,
                             .inner = 21504,
                             .vocabulary = 262208,
                             .activation = Activation::kGeluTanh,
                             .qk_norm = true,
                             .post_norms = true,
                             .tied = true,
                             .window = 1024,
                             .full_every = 6};

constexpr Shape kGptOss120B = {.layers = 36,
                               .hidden = 2880,
                               .q_heads = 64,
                               .kv_heads = 8,
                               .head_dim = 64,
                               .rope_dim = 64,
                               .vocabulary = 201088,
                               .activation = Activation::kSwigluClamped,
                               .qkv_bias = true,
                               .o_bias = true,
                               .sinks = true,
                               .window = 128,
                               .full_every = 2,
                               .mixture = {.experts = 128,
                                           .chosen = 4,
                                           .inner = 2880,
                                           .routing = Routing::kTopKSoftmax,
                                           .router_bias = true,
                                           .expert_bias = true}};

constexpr Shape kGlm45Air = {.layers = 46,
                             .hidden = 4096,
                             .q_heads = 96,
                             .kv_heads = 8,
                             .head_dim = 128,
                             .rope_dim = 64,
                             .inner = 10944,
                             .vocabulary = 151552,
                             .qkv_bias = true,
                             .mixture = {.experts = 128,
                                         .chosen = 8,
                                         .inner = 1408,
                                         .shared_inner = 1408,
                                         .dense_layers = 1,
                                         .routing = Routing::kSigmoidGroups,
                                         .normalize = true,
                                         .correction = true}};

// Embedding and head are left as they are by every quantized form of these.
constexpr Forms Projections(const WeightFormat& format) { return {format, format, kBf16Weights}; }

constexpr int32_t kDense = 80, kMixture = 60;  // per cent

}  // namespace

const std::vector<DeployedShape>& DeployedShapes() {
  static const std::vector<DeployedShape> shapes = {
      {"llama-3.3-70b-fp8", "fp8, row scales", kLlama70B, Projections(kFp8Weights), kDense},
      {"llama-3.3-70b-int4", "int4", kLlama70B, Projections(kInt4Weights), kDense},
      {"qwen3-32b", "bf16", kQwen32B, AllOf(kBf16Weights), kDense},
      {"qwen3-30b-a3b", "bf16", kQwen30BA3B, AllOf(kBf16Weights), kMixture},
      {"gemma-3-27b", "bf16", kGemma27B, AllOf(kBf16Weights), kDense},
      {"gpt-oss-120b",
       "experts in mxfp4, else bf16",
       kGptOss120B,
       {kBf16Weights, kMxfp4Weights, kBf16Weights},
       kMixture},
      {"glm-4.5-air", "int4", kGlm45Air, Projections(kInt4Weights), kMixture}};
  return shapes;
}

}  // namespace switchyard::bench
