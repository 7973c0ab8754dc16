#include "worker/model/families.h"

#include <algorithm>
#include <cmath>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status_macros.h"
#include "common/utf8.h"
#include "worker/model/config_reader.h"
#include "worker/model/family_table.h"

namespace switchyard::worker {
namespace {

using kernels::Activation;

void ReadShape(ConfigReader& config, const ClassDefaults& defaults, Architecture& arch) {
  arch.vocabulary = config.Int("vocab_size", defaults.vocabulary, 1, 1 << 22);
  arch.hidden = config.Int("hidden_size", defaults.hidden, 1, 1 << 17);
  arch.intermediate = config.Int("intermediate_size", defaults.intermediate, 1, 1 << 20);
  arch.layers.resize(config.Int("num_hidden_layers", defaults.layers, 1, 1024));
  arch.max_positions = config.Int("max_position_embeddings", defaults.max_positions, 1, 1 << 28);
  arch.norm_eps = static_cast<float>(config.Number("rms_norm_eps", defaults.norm_eps, 1e-12, 1));
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
                                          ValidUtf8(asked, 100),
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
        absl::StrCat("config.json: model_type \"", ValidUtf8(model_type, 100),
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
