#include "worker/model/image_slots.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace switchyard::worker {
namespace {

// Collects slots of one layer; `at` stands before the names of its tensors.
class Slots {
 public:
  Slots(const Architecture& arch, int32_t layer, std::string at)
      : arch_(arch), layer_(layer), at_(std::move(at)) {}

  void Norm(Role role, const std::string& name, int64_t width) {
    Vector(role, {{at_ + name + ".weight", {width}}}, width);
    if (arch_.names.norm_plus_one) slots_.back().transform = Transform::kConvertPlusOne;
  }

  // A float32 vector of parts one after the other.
  void Vector(Role role, std::vector<SlotPart> parts, int64_t width) {
    slots_.push_back(
        {.role = role, .layer = layer_, .k = width, .f32 = true, .parts = std::move(parts)});
  }

  // Matrices of [rows][k] on top of each other.
  void Matrix(Role role, const std::vector<std::pair<std::string, int64_t>>& parts, int64_t k,
              bool f32 = false) {
    ImageSlot slot{.role = role, .layer = layer_, .n = 0, .k = k, .f32 = f32, .parts = {}};
    for (const auto& [name, rows] : parts) {
      slot.n += rows;
      slot.parts.push_back({at_ + name + ".weight", {rows, k}});
    }
    slots_.push_back(std::move(slot));
  }

  void Bias(Role role, const std::vector<std::pair<std::string, int64_t>>& parts) {
    std::vector<SlotPart> vectors;
    int64_t width = 0;
    for (const auto& [name, rows] : parts) {
      width += rows;
      vectors.push_back({at_ + name + ".bias", {rows}});
    }
    Vector(role, std::move(vectors), width);
  }

  void Add(ImageSlot slot) {
    slot.layer = layer_;
    slots_.push_back(std::move(slot));
  }

  const std::string& at() const { return at_; }
  std::vector<ImageSlot> Take() { return std::move(slots_); }

 private:
  const Architecture& arch_;
  int32_t layer_;
  std::string at_;
  std::vector<ImageSlot> slots_;
};

void AttentionSlots(const Architecture& a, Slots& slots) {
  const int64_t q = int64_t{a.q_heads} * a.head_dim;
  const int64_t kv = int64_t{a.kv_heads} * a.head_dim;
  const std::vector<std::pair<std::string, int64_t>> qkv = {
      {"self_attn.q_proj", q}, {"self_attn.k_proj", kv}, {"self_attn.v_proj", kv}};
  slots.Norm(Role::kAttentionNorm, "input_layernorm", a.hidden);
  slots.Matrix(Role::kQkv, qkv, a.hidden);
  if (a.qkv_bias) slots.Bias(Role::kQkvBias, qkv);
  if (a.qk_norm) {
    slots.Norm(Role::kQNorm, "self_attn.q_norm", a.head_dim);
    slots.Norm(Role::kKNorm, "self_attn.k_norm", a.head_dim);
  }
  if (a.sinks) {
    slots.Vector(Role::kSinks, {{slots.at() + "self_attn.sinks", {a.q_heads}}}, a.q_heads);
  }
  slots.Matrix(Role::kO, {{"self_attn.o_proj", a.hidden}}, q);
  if (a.o_bias) slots.Bias(Role::kOBias, {{"self_attn.o_proj", a.hidden}});
  if (a.post_norms) slots.Norm(Role::kPostAttentionNorm, a.names.post_attention_norm, a.hidden);
}

void DenseSlots(const Architecture& a, Slots& slots) {
  const std::vector<std::pair<std::string, int64_t>> gate_up = {{"mlp.gate_proj", a.intermediate},
                                                                {"mlp.up_proj", a.intermediate}};
  slots.Matrix(Role::kGateUp, gate_up, a.hidden);
  if (a.mlp_bias) slots.Bias(Role::kGateUpBias, gate_up);
  slots.Matrix(Role::kDown, {{"mlp.down_proj", a.hidden}}, a.intermediate);
  if (a.mlp_bias) slots.Bias(Role::kDownBias, {{"mlp.down_proj", a.hidden}});
}

void RouterSlots(const Architecture& a, Slots& slots) {
  const MoeShape& moe = a.moe;
  slots.Matrix(Role::kRouter, {{a.names.router, moe.experts}}, a.hidden, /*f32=*/true);
  if (moe.router_bias) slots.Bias(Role::kRouterBias, {{a.names.router, moe.experts}});
  if (moe.correction) {
    slots.Vector(Role::kRouterCorrection,
                 {{slots.at() + a.names.router + ".e_score_correction_bias", {moe.experts}}},
                 moe.experts);
  }
}

// Experts in one tensor each for gate/up and down. Transposed: [E][in][out], gate and up
// interleaved.
void FusedExpertSlots(const Architecture& a, Slots& slots) {
  const int64_t e = a.moe.experts, h = a.hidden, i = a.moe.intermediate;
  const bool transposed = a.names.experts_transposed;
  const std::string gate_up = slots.at() + "mlp.experts.gate_up_proj";
  const std::string down = slots.at() + "mlp.experts.down_proj";
  using Shape = std::vector<int64_t>;
  slots.Add({.role = Role::kExpertsGateUp,
             .batch = e,
             .n = 2 * i,
             .k = h,
             .transform = transposed ? Transform::kTransposeDeinterleave : Transform::kCopy,
             .parts = {{gate_up, transposed ? Shape{e, h, 2 * i} : Shape{e, 2 * i, h}}}});
  if (a.moe.expert_bias) {
    slots.Add({.role = Role::kExpertsGateUpBias,
               .batch = e,
               .k = 2 * i,
               .f32 = true,
               .transform = transposed ? Transform::kDeinterleave : Transform::kCopy,
               .parts = {{gate_up + "_bias", {e, 2 * i}}}});
  }
  slots.Add({.role = Role::kExpertsDown,
             .batch = e,
             .n = h,
             .k = i,
             .transform = transposed ? Transform::kTranspose : Transform::kCopy,
             .parts = {{down, transposed ? Shape{e, i, h} : Shape{e, h, i}}}});
  if (a.moe.expert_bias) {
    slots.Add({.role = Role::kExpertsDownBias,
               .batch = e,
               .k = h,
               .f32 = true,
               .parts = {{down + "_bias", {e, h}}}});
  }
}

void ExpertByExpertSlots(const Architecture& a, Slots& slots) {
  const int64_t e = a.moe.experts, h = a.hidden, i = a.moe.intermediate;
  ImageSlot gate_up{.role = Role::kExpertsGateUp, .batch = e, .n = 2 * i, .k = h, .parts = {}};
  ImageSlot down{.role = Role::kExpertsDown, .batch = e, .n = h, .k = i, .parts = {}};
  for (int64_t expert = 0; expert < e; ++expert) {
    const std::string at = absl::StrCat(slots.at(), "mlp.experts.", expert, ".");
    gate_up.parts.push_back({at + "gate_proj.weight", {i, h}});
    gate_up.parts.push_back({at + "up_proj.weight", {i, h}});
    down.parts.push_back({at + "down_proj.weight", {h, i}});
  }
  slots.Add(std::move(gate_up));
  slots.Add(std::move(down));
}

void MixtureSlots(const Architecture& a, const HasTensor& has, Slots& slots) {
  RouterSlots(a, slots);
  if (a.names.experts_transposed || has(slots.at() + "mlp.experts.gate_up_proj")) {
    FusedExpertSlots(a, slots);
  } else {
    ExpertByExpertSlots(a, slots);
  }
  const int64_t shared = a.moe.shared_intermediate;
  if (shared == 0) return;
  slots.Matrix(Role::kSharedGateUp,
               {{"mlp.shared_experts.gate_proj", shared}, {"mlp.shared_experts.up_proj", shared}},
               a.hidden);
  slots.Matrix(Role::kSharedDown, {{"mlp.shared_experts.down_proj", a.hidden}}, shared);
}

}  // namespace

std::vector<ImageSlot> EmbeddingSlots(const Architecture& arch, const std::string& prefix) {
  Slots slots(arch, -1, prefix);
  slots.Matrix(Role::kEmbedding, {{"embed_tokens", arch.vocabulary}}, arch.hidden);
  return slots.Take();
}

std::vector<ImageSlot> LayerSlots(const Architecture& arch, int32_t layer,
                                  const std::string& prefix, const HasTensor& has) {
  Slots slots(arch, layer, absl::StrCat(prefix, "layers.", layer, "."));
  AttentionSlots(arch, slots);
  slots.Norm(Role::kMlpNorm, arch.names.mlp_norm, arch.hidden);
  if (arch.layers[layer].moe) {
    MixtureSlots(arch, has, slots);
  } else {
    DenseSlots(arch, slots);
  }
  if (arch.post_norms) slots.Norm(Role::kPostMlpNorm, arch.names.post_mlp_norm, arch.hidden);
  return slots.Take();
}

std::vector<ImageSlot> HeadSlots(const Architecture& arch, const std::string& prefix,
                                 const std::string& head) {
  Slots slots(arch, -1, prefix);
  slots.Norm(Role::kFinalNorm, "norm", arch.hidden);
  if (!arch.tied_embeddings) {
    slots.Add({.role = Role::kHead,
               .n = arch.vocabulary,
               .k = arch.hidden,
               .parts = {{head, {arch.vocabulary, arch.hidden}}}});
  }
  return slots.Take();
}

}  // namespace switchyard::worker
