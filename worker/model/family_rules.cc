#include "worker/model/family_rules.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/utf8.h"

namespace switchyard::worker {
namespace {

constexpr int32_t kMaxWindow = 1 << 28;
constexpr int32_t kMaxExperts = 4096;
constexpr int32_t kMaxExpertWidth = 1 << 20;

void SetWindows(Architecture& arch, int32_t window, const std::function<bool(int32_t)>& slides) {
  for (size_t i = 0; i < arch.layers.size(); ++i) {
    if (slides(static_cast<int32_t>(i))) arch.layers[i].window = window;
  }
}

// `layer_types`, if the config has it: whether each layer slides.
std::optional<std::vector<bool>> ReadLayerTypes(ConfigReader& config, const Architecture& arch) {
  if (!config.Has("layer_types")) return std::nullopt;
  const std::vector<std::string> types = config.Strings("layer_types");
  if (types.size() != arch.layers.size()) {
    config.Refuse(absl::StrCat("\"layer_types\" has ", types.size(), " entries for ",
                               arch.layers.size(), " layers"));
    return std::nullopt;
  }
  std::vector<bool> slides;
  for (const std::string& type : types) {
    if (type != "sliding_attention" && type != "full_attention") {
      config.RefuseUnsupported(absl::StrCat("layer type \"", ValidUtf8(type, 100),
                                            "\" is not supported; known: full_attention, "
                                            "sliding_attention"));
      return std::nullopt;
    }
    slides.push_back(type == "sliding_attention");
  }
  return slides;
}

// Windows by `layer_types`, else by `rule`.
void TypedWindows(ConfigReader& config, Architecture& arch, int32_t default_window,
                  const std::function<bool(int32_t)>& rule) {
  const std::optional<std::vector<bool>> types = ReadLayerTypes(config, arch);
  const auto slides = [&](int32_t layer) { return types ? (*types)[layer] : rule(layer); };
  const int32_t window = config.Int("sliding_window", default_window, 1, kMaxWindow);
  SetWindows(arch, window, slides);
  const bool any = std::any_of(arch.layers.begin(), arch.layers.end(),
                               [](const LayerShape& layer) { return layer.window > 0; });
  if (any && config.IsNull("sliding_window")) {
    config.Refuse("layers slide, but \"sliding_window\" is null");
  }
}

void ReadExperts(ConfigReader& config, MoeShape& moe, int32_t default_chosen, int32_t least) {
  // Different versions of the same class write one or the other name.
  const char* key = "num_experts";
  for (const char* name : {"n_routed_experts", "num_local_experts", "num_experts"}) {
    if (config.Has(name)) key = name;
  }
  moe.experts = config.Int(key, 128, least, kMaxExperts);
  moe.chosen = config.Int("num_experts_per_tok", default_chosen, 1, kMaxExperts);
  if (moe.experts > 0 && moe.chosen > moe.experts) {
    config.Refuse(absl::StrCat("\"num_experts_per_tok\" is ", moe.chosen, ", but there are ",
                               moe.experts, " experts"));
  }
}

// A choice that the file may spell out, and of which there is one way here.
void OnlyWay(ConfigReader& config, const char* key, const std::string& way) {
  const std::string asked = config.String(key, way);
  if (asked == way) return;
  config.RefuseUnsupported(absl::StrCat("\"", key, "\" is \"", ValidUtf8(asked, 100), "\": only \"",
                                        way, "\" is supported"));
}

// The rotary object of either style: `rope_scaling` wins where both are there.
const char* RopeKey(ConfigReader& config) {
  return config.HasEntries("rope_scaling") ? "rope_scaling" : "rope_parameters";
}

void AddRope(ConfigReader rope, ConfigReader& config, const RopeDefaults& defaults,
             Architecture& arch) {
  const RopeParameters parameters = ReadRope(rope, config, defaults);
  if (rope.status().ok()) arch.ropes.push_back(MakeRope(parameters));
}

}  // namespace

void NoWindows(ConfigReader& /*config*/, Architecture& /*arch*/) {}

void SameWindowEverywhere(ConfigReader& config, Architecture& arch) {
  if (config.Has("layer_types")) {
    config.RefuseUnsupported("\"layer_types\" is not supported in this family");
  }
  if (config.IsNull("sliding_window")) return;
  SetWindows(arch, config.Int("sliding_window", 4096, 1, kMaxWindow), [](int32_t) { return true; });
}

void Qwen3Windows(ConfigReader& config, Architecture& arch) {
  if (!config.Bool("use_sliding_window", false) || config.IsNull("sliding_window")) return;
  const int32_t first = config.Int("max_window_layers", 28, 0, 1 << 20);
  TypedWindows(config, arch, 4096, [first](int32_t layer) { return layer >= first; });
}

void Qwen3MoeWindows(ConfigReader& config, Architecture& arch) {
  if (!config.Bool("use_sliding_window", false) || config.IsNull("sliding_window")) return;
  SetWindows(arch, config.Int("sliding_window", 4096, 1, kMaxWindow), [](int32_t) { return true; });
}

void Gemma3Windows(ConfigReader& config, Architecture& arch) {
  const int32_t pattern = config.Int("sliding_window_pattern", 6, 1, 1 << 20);
  TypedWindows(config, arch, 4096, [pattern](int32_t layer) { return (layer + 1) % pattern != 0; });
  for (LayerShape& layer : arch.layers) layer.rope = layer.window > 0 ? 1 : 0;
}

void GptOssWindows(ConfigReader& config, Architecture& arch) {
  TypedWindows(config, arch, 128, [](int32_t layer) { return layer % 2 == 0; });
}

void NoMixture(ConfigReader& /*config*/, Architecture& /*arch*/) {}

void Qwen3Mixture(ConfigReader& config, Architecture& arch) {
  ReadExperts(config, arch.moe, 8, 0);
  arch.moe.intermediate = config.Int("moe_intermediate_size", 768, 1, kMaxExpertWidth);
  arch.moe.routing = kernels::Routing::kSoftmaxTopK;
  arch.moe.normalize = config.Bool("norm_topk_prob", false);
  const int32_t step = config.Int("decoder_sparse_step", 1, 1, 1 << 20);
  const std::vector<int32_t> dense = config.Ints("mlp_only_layers", 0, 1 << 20);
  for (size_t i = 0; i < arch.layers.size(); ++i) {
    const bool listed =
        std::find(dense.begin(), dense.end(), static_cast<int32_t>(i)) != dense.end();
    arch.layers[i].moe = arch.moe.experts > 0 && !listed && (i + 1) % step == 0;
  }
}

void GptOssMixture(ConfigReader& config, Architecture& arch) {
  ReadExperts(config, arch.moe, 4, 1);
  const int32_t older = config.Int("experts_per_token", arch.moe.chosen, 1, kMaxExperts);
  if (older != arch.moe.chosen) {
    config.Refuse(absl::StrCat("\"experts_per_token\" is ", older, ", \"num_experts_per_tok\" ",
                               arch.moe.chosen));
  }
  if (config.Number("swiglu_limit", 7, 0, 1e6) != 7) {
    config.RefuseUnsupported("\"swiglu_limit\" other than 7 is not supported");
  }
  arch.moe.intermediate = arch.intermediate;
  arch.moe.routing = kernels::Routing::kTopKSoftmax;
  arch.moe.router_bias = true;
  arch.moe.expert_bias = true;
  for (LayerShape& layer : arch.layers) layer.moe = true;
}

void Glm4Mixture(ConfigReader& config, Architecture& arch) {
  OnlyWay(config, "scoring_func", "sigmoid");
  OnlyWay(config, "topk_method", "noaux_tc");
  MoeShape& moe = arch.moe;
  ReadExperts(config, moe, 8, 1);
  moe.intermediate = config.Int("moe_intermediate_size", 1408, 1, kMaxExpertWidth);
  moe.shared_intermediate = moe.intermediate * config.Int("n_shared_experts", 1, 0, 64);
  moe.routing = kernels::Routing::kSigmoidGroups;
  moe.correction = true;
  moe.normalize = config.Bool("norm_topk_prob", true);
  moe.scale = static_cast<float>(config.Number("routed_scaling_factor", 1, 1e-6, 1e6));
  moe.groups = config.Int("n_group", 1, 1, kernels::kMaxExpertGroups);
  moe.best_groups = config.Int("topk_group", 1, 1, kMaxExperts);
  const int32_t group = moe.experts / moe.groups;
  if (moe.experts % moe.groups != 0 || group < 2 || moe.best_groups > moe.groups) {
    config.Refuse(absl::StrCat(moe.experts, " experts in ", moe.groups,
                               " groups, of which the best ", moe.best_groups,
                               ": groups must be equal and of at least 2"));
  } else if (moe.chosen > group * moe.best_groups) {
    config.Refuse(absl::StrCat("\"num_experts_per_tok\" is ", moe.chosen, ", but the best ",
                               moe.best_groups, " groups have ", group * moe.best_groups));
  }
  const int32_t dense = config.Int("first_k_dense_replace", 1, 0, 1 << 20);
  for (size_t i = 0; i < arch.layers.size(); ++i) {
    arch.layers[i].moe = static_cast<int32_t>(i) >= dense;
  }
}

void OneRope(ConfigReader& config, RopeDefaults defaults, Architecture& arch) {
  defaults.theta = config.Number("rope_theta", defaults.theta, 1.001, 1e12);
  AddRope(config.Object(RopeKey(config)), config, defaults, arch);
}

void GptOssRope(ConfigReader& config, RopeDefaults defaults, Architecture& arch) {
  if (config.HasEntries("rope_scaling") || config.Has("rope_parameters")) {
    OneRope(config, defaults, arch);
    return;
  }
  // The class's own default; `dim` as ever.
  ConfigReader none = config.Object("rope_parameters");
  RopeParameters p = ReadRope(none, config, defaults);
  p.type = RopeType::kYarn;
  p.theta = config.Number("rope_theta", defaults.theta, 1.001, 1e12);
  p.factor = 32;
  p.original_context = 4096;
  p.truncate = false;
  p.attention_factor = YarnMagnitude(p.factor);
  arch.ropes.push_back(MakeRope(p));
}

void GlobalAndLocalRope(ConfigReader& config, RopeDefaults defaults, Architecture& arch) {
  ConfigReader both = config.Object("rope_parameters");
  for (const char* flat : {"rope_type", "type", "rope_theta", "factor"}) {
    if (both.Has(flat)) {
      config.Refuse("\"rope_parameters\" must be given by layer type in this family");
    }
  }
  // `rope_scaling`, the older style, is for the global layers only.
  RopeDefaults global = defaults;
  global.theta = config.Number("rope_theta", defaults.theta, 1.001, 1e12);
  AddRope(config.HasEntries("rope_scaling") ? config.Object("rope_scaling")
                                            : both.Object("full_attention"),
          config, global, arch);
  RopeDefaults local = defaults;
  local.theta = config.Number("rope_local_base_freq", 10000, 1.001, 1e12);
  AddRope(both.Object("sliding_attention"), config, local, arch);
}

}  // namespace switchyard::worker
