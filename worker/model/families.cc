#include "worker/model/families.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status_macros.h"
#include "worker/model/config_reader.h"
#include "worker/model/family_rules.h"

namespace switchyard::worker {
namespace {

using kernels::Activation;

// What config.json may leave out.
struct ClassDefaults {
  int32_t vocabulary, hidden, intermediate, layers;
  int32_t q_heads;
  int32_t kv_heads;  // 0: q_heads
  int32_t head_dim;  // 0: hidden / q_heads
  int32_t max_positions;
  double norm_eps = 1e-6;
  double rope_theta = 10000;
  double partial_rotary_factor = 1;
  bool tied = false;
  bool attention_bias = false;
  int32_t bos_id = -1, eos_id = -1;  // -1: none
};

enum class Bias : uint8_t { kNever, kQkv, kQkvo };          // where `attention_bias` puts one
enum class QkNorm : uint8_t { kNever, kAlways, kIfAsked };  // kIfAsked: `use_qk_norm`

struct Family {
  const char* model_type;
  const char* name;
  ClassDefaults defaults;
  Activation activation = Activation::kSilu;
  const char* activation_key = "hidden_act";
  const char* activation_name = "silu";  // the one that the config may ask for
  Bias bias = Bias::kQkvo;
  QkNorm qk_norm = QkNorm::kNever;
  bool reads_mlp_bias = false;
  bool hidden_in_heads = false;  // the class insists on hidden % q_heads == 0
  bool nested = false;           // the text model's fields are in `text_config`
  bool sinks = false;
  bool post_norms = false;
  bool scales_embedding = false;     // by sqrt(hidden)
  bool reads_query_scalar = false;   // scores by query_pre_attn_scalar^-0.5, not head_dim^-0.5
  bool reads_logit_softcap = false;  // final_logit_softcapping
  WindowRule windows = NoWindows;
  MixtureRule mixture = NoMixture;
  RopeRule ropes = OneRope;
  TensorNames names = {};
};

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

void ReadShape(ConfigReader& config, const ClassDefaults& defaults, Architecture& arch) {
  arch.vocabulary = config.Int("vocab_size", defaults.vocabulary, 1, 1 << 22);
  arch.hidden = config.Int("hidden_size", defaults.hidden, 1, 1 << 17);
  arch.intermediate = config.Int("intermediate_size", defaults.intermediate, 1, 1 << 20);
  arch.layers.resize(config.Int("num_hidden_layers", defaults.layers, 1, 1024));
  arch.max_positions = config.Int("max_position_embeddings", defaults.max_positions, 1, 1 << 28);
  arch.norm_eps = static_cast<float>(config.Number("rms_norm_eps", defaults.norm_eps, 0, 1));
}

void ReadHeads(ConfigReader& config, const Family& family, Architecture& arch) {
  const ClassDefaults& defaults = family.defaults;
  arch.q_heads = config.Int("num_attention_heads", defaults.q_heads, 1, 4096);
  const bool as_many = config.IsNull("num_key_value_heads") || defaults.kv_heads == 0;
  arch.kv_heads =
      config.Int("num_key_value_heads", as_many ? arch.q_heads : defaults.kv_heads, 1, 4096);
  const bool quotient = config.IsNull("head_dim") || defaults.head_dim == 0;
  arch.head_dim =
      config.Int("head_dim", quotient ? arch.hidden / arch.q_heads : defaults.head_dim, 1, 1024);
  if (arch.q_heads % arch.kv_heads != 0) {
    config.Refuse(absl::StrCat(arch.q_heads, " attention heads are not a multiple of ",
                               arch.kv_heads, " key-value heads"));
  }
  if (arch.head_dim < 2 || arch.head_dim > 1024 || arch.head_dim % 2 != 0) {
    config.Refuse(absl::StrCat("head size ", arch.head_dim, " must be even, from 2 to 1024"));
  }
  if (family.hidden_in_heads && arch.hidden % arch.q_heads != 0) {
    config.Refuse(absl::StrCat("\"hidden_size\" ", arch.hidden, " is not a multiple of ",
                               arch.q_heads, " attention heads"));
  }
}

void ReadAttention(ConfigReader& config, const Family& family, Architecture& arch) {
  const bool asks = config.Bool("attention_bias", family.defaults.attention_bias);
  arch.qkv_bias = asks && family.bias != Bias::kNever;
  arch.o_bias = asks && family.bias == Bias::kQkvo;
  arch.qk_norm = family.qk_norm == QkNorm::kAlways ||
                 (family.qk_norm == QkNorm::kIfAsked && config.Bool("use_qk_norm", false));
  arch.sinks = family.sinks;
  arch.post_norms = family.post_norms;
  double scale_of = arch.head_dim;
  if (family.reads_query_scalar) scale_of = config.Number("query_pre_attn_scalar", 256, 1e-3, 1e6);
  arch.attention_scale = static_cast<float>(1 / std::sqrt(scale_of));
  if (config.Has("attn_logit_softcapping")) {
    config.RefuseUnsupported("\"attn_logit_softcapping\" is not supported");
  }
  if (config.Bool("use_bidirectional_attention", false)) {
    config.RefuseUnsupported("\"use_bidirectional_attention\" is not supported");
  }
}

void ReadRest(ConfigReader& config, const Family& family, Architecture& arch) {
  arch.activation = family.activation;
  const std::string asked = config.String(family.activation_key, family.activation_name);
  if (asked != family.activation_name &&
      !(asked == "swish" && arch.activation == Activation::kSilu)) {
    config.RefuseUnsupported(absl::StrCat("\"", family.activation_key, "\" \"",
                                          asked.substr(0, 100),
                                          "\" is not supported; known: ", family.activation_name));
  }
  arch.mlp_bias = family.reads_mlp_bias && config.Bool("mlp_bias", false);
  if (family.scales_embedding) {
    arch.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(arch.hidden)));
  }
  if (family.reads_logit_softcap) {
    arch.logit_softcap = static_cast<float>(config.Number("final_logit_softcapping", 0, 1e-3, 1e6));
  }
}

absl::StatusOr<const Family*> FamilyOf(const nlohmann::json& config) {
  ConfigReader top(config, "config.json");
  const std::string model_type = top.String("model_type", "");
  RETURN_IF_ERROR(top.status());
  if (model_type.empty()) {
    return absl::InvalidArgumentError("config.json: \"model_type\" is missing");
  }
  const Family* family = FindFamily(model_type);
  if (family == nullptr) {
    return absl::UnimplementedError(
        absl::StrCat("config.json: model_type \"", model_type.substr(0, 100),
                     "\" is not supported; known: ", absl::StrJoin(KnownModelTypes(), ", ")));
  }
  return family;
}

}  // namespace

absl::StatusOr<Architecture> ReadArchitecture(const nlohmann::json& json) {
  ASSIGN_OR_RETURN(const Family* family, FamilyOf(json));
  ConfigReader top(json, "config.json");
  ConfigReader config = family->nested ? top.Object("text_config") : top;

  Architecture arch;
  arch.family = family->name;
  arch.names = family->names;
  // Of a nested config only the outer flag counts.
  arch.tied_embeddings = top.Bool("tie_word_embeddings", family->defaults.tied);
  ReadShape(config, family->defaults, arch);
  ReadHeads(config, *family, arch);
  RETURN_IF_ERROR(config.status());  // what follows divides by these
  ReadAttention(config, *family, arch);
  ReadRest(config, *family, arch);
  family->mixture(config, arch);
  family->windows(config, arch);
  family->ropes(config,
                {.theta = family->defaults.rope_theta,
                 .partial_rotary_factor = family->defaults.partial_rotary_factor,
                 .head_dim = arch.head_dim,
                 .max_positions = arch.max_positions},
                arch);
  RETURN_IF_ERROR(config.status());
  const bool any_moe = std::any_of(arch.layers.begin(), arch.layers.end(),
                                   [](const LayerShape& layer) { return layer.moe; });
  const bool any_dense = std::any_of(arch.layers.begin(), arch.layers.end(),
                                     [](const LayerShape& layer) { return !layer.moe; });
  if (!any_moe) arch.moe = MoeShape();
  if (!any_dense) arch.intermediate = 0;
  return arch;
}

GenerationConfig WithClassDefaults(GenerationConfig generation, const nlohmann::json& config) {
  const absl::StatusOr<const Family*> family = FamilyOf(config);
  if (!family.ok()) return generation;
  const ClassDefaults& defaults = (*family)->defaults;
  if (generation.eos_ids.empty() && defaults.eos_id >= 0) generation.eos_ids = {defaults.eos_id};
  if (generation.bos_id < 0) generation.bos_id = defaults.bos_id;
  return generation;
}

std::vector<std::string> KnownModelTypes() {
  std::vector<std::string> types;
  for (const Family& family : Families()) types.push_back(family.model_type);
  return types;
}

}  // namespace switchyard::worker
