#include "worker/model/family_table.h"

namespace switchyard::worker {
namespace {

using kernels::Activation;

Family Llama() {
  return {.model_type = "llama",
          .name = "llama",
          .defaults = {.vocabulary = 32000,
                       .hidden = 4096,
                       .intermediate = 11008,
                       .layers = 32,
                       .q_heads = 32,
                       .kv_heads = 0,
                       .head_dim = 0,
                       .max_positions = 2048,
                       .bos_id = 1,
                       .eos_id = 2},
          .reads_mlp_bias = true,
          .hidden_in_heads = true};
}

Family Mistral() {
  return {.model_type = "mistral",
          .name = "llama",
          .defaults = {.vocabulary = 32000,
                       .hidden = 4096,
                       .intermediate = 14336,
                       .layers = 32,
                       .q_heads = 32,
                       .kv_heads = 8,
                       .head_dim = 0,
                       .max_positions = 131072,
                       .bos_id = 1,
                       .eos_id = 2},
          .bias = Bias::kNever,
          .windows = SameWindowEverywhere};
}

Family Qwen3() {
  return {.model_type = "qwen3",
          .name = "qwen3",
          .defaults = {.vocabulary = 151936,
                       .hidden = 4096,
                       .intermediate = 22016,
                       .layers = 32,
                       .q_heads = 32,
                       .kv_heads = 32,
                       .head_dim = 128,
                       .max_positions = 32768},
          .qk_norm = QkNorm::kAlways,
          .windows = Qwen3Windows};
}

Family Qwen3Moe() {
  return {.model_type = "qwen3_moe",
          .name = "qwen3_moe",
          .defaults = {.vocabulary = 151936,
                       .hidden = 2048,
                       .intermediate = 6144,
                       .layers = 24,
                       .q_heads = 32,
                       .kv_heads = 4,
                       .head_dim = 0,
                       .max_positions = 32768},
          .qk_norm = QkNorm::kAlways,
          .windows = Qwen3MoeWindows,
          .mixture = Qwen3Mixture};
}

Family Gemma3Text() {
  return {.model_type = "gemma3_text",
          .name = "gemma3",
          .defaults = {.vocabulary = 262208,
                       .hidden = 2304,
                       .intermediate = 9216,
                       .layers = 26,
                       .q_heads = 8,
                       .kv_heads = 4,
                       .head_dim = 256,
                       .max_positions = 131072,
                       .rope_theta = 1e6,
                       .tied = true,
                       .bos_id = 2,
                       .eos_id = 1},
          .activation = Activation::kGeluTanh,
          .activation_key = "hidden_activation",
          .activation_name = "gelu_pytorch_tanh",
          .qk_norm = QkNorm::kAlways,
          .hidden_in_heads = true,
          .post_norms = true,
          .scales_embedding = true,
          .reads_query_scalar = true,
          .reads_logit_softcap = true,
          .windows = Gemma3Windows,
          .ropes = GlobalAndLocalRope,
          .names = {.post_attention_norm = "post_attention_layernorm",
                    .mlp_norm = "pre_feedforward_layernorm",
                    .post_mlp_norm = "post_feedforward_layernorm",
                    .norm_plus_one = true}};
}

Family Gemma3() {
  Family family = Gemma3Text();
  family.model_type = "gemma3";
  family.nested = true;
  family.names.prefixes = {"language_model.model.", "model.language_model.", "model."};
  family.names.heads = {"lm_head.weight", "language_model.lm_head.weight"};
  family.names.skipped = {"vision_tower.", "model.vision_tower.", "multi_modal_projector.",
                          "model.multi_modal_projector."};
  return family;
}

Family GptOss() {
  return {.model_type = "gpt_oss",
          .name = "gpt_oss",
          .defaults = {.vocabulary = 201088,
                       .hidden = 2880,
                       .intermediate = 2880,
                       .layers = 36,
                       .q_heads = 64,
                       .kv_heads = 8,
                       .head_dim = 64,
                       .max_positions = 131072,
                       .norm_eps = 1e-5,
                       .rope_theta = 150000,
                       .attention_bias = true},
          .activation = Activation::kSwigluClamped,
          .sinks = true,
          .windows = GptOssWindows,
          .mixture = GptOssMixture,
          .ropes = GptOssRope,
          .names = {.router = "mlp.router", .experts_transposed = true}};
}

Family Glm4Moe() {
  return {.model_type = "glm4_moe",
          .name = "glm4_moe",
          .defaults = {.vocabulary = 151552,
                       .hidden = 4096,
                       .intermediate = 10944,
                       .layers = 46,
                       .q_heads = 96,
                       .kv_heads = 8,
                       .head_dim = 0,
                       .max_positions = 131072,
                       .norm_eps = 1e-5,
                       .partial_rotary_factor = 0.5},
          .bias = Bias::kQkv,
          .qk_norm = QkNorm::kIfAsked,
          .mixture = Glm4Mixture,
          .names = {.more_layers = true}};
}

}  // namespace

const std::vector<Family>& Families() {
  static const auto* table = new std::vector<Family>{Llama(),      Mistral(), Qwen3(),  Qwen3Moe(),
                                                     Gemma3Text(), Gemma3(),  GptOss(), Glm4Moe()};
  return *table;
}

const Family* FindFamily(const std::string& model_type) {
  for (const Family& family : Families()) {
    if (model_type == family.model_type) return &family;
  }
  return nullptr;
}

}  // namespace switchyard::worker
