#include "worker/model/transformer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"

namespace switchyard::worker {
namespace {

absl::Status Launched(kernels::OpError error, const char* op) {
  if (error.ok()) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(op, ": ", error.message));
}

}  // namespace

Transformer::Transformer(const Architecture& arch, const Weights& weights,
                         std::vector<const float*> ropes, kernels::Ops& ops,
                         Activations activations, int32_t logit_rows)
    : arch_(arch),
      weights_(weights),
      ropes_(std::move(ropes)),
      ops_(ops),
      act_(activations),
      logit_rows_(logit_rows) {}

absl::Status Transformer::Forward(const Step& step, const BeforeLayer& before_layer,
                                  kernels::Stream stream) {
  const int32_t layers = static_cast<int32_t>(arch_.layers.size());
  for (int32_t i = 0; i < layers; ++i) {
    if (before_layer) RETURN_IF_ERROR(before_layer(i));
    if (i == 0) RETURN_IF_ERROR(Embed(step, stream));
    RETURN_IF_ERROR(Layer(i, step, stream));
  }
  if (step.logit_count == 0) return absl::OkStatus();
  if (before_layer) RETURN_IF_ERROR(before_layer(layers));
  for (int32_t first = 0; first < step.logit_count; first += logit_rows_) {
    const int32_t count = std::min(logit_rows_, step.logit_count - first);
    RETURN_IF_ERROR(LogitTile(step, first, count, stream));
  }
  return absl::OkStatus();
}

absl::Status Transformer::Embed(const Step& step, kernels::Stream stream) {
  return Launched(ops_.Embed({.rows = step.rows,
                              .tokens = step.tokens,
                              .table = weights_.embedding,
                              .scale = arch_.embedding_scale,
                              .out = act_.residual},
                             act_.scratch, stream),
                  "Embed");
}

absl::Status Transformer::Layer(int32_t i, const Step& step, kernels::Stream stream) {
  RETURN_IF_ERROR(AttentionBlock(i, step, stream));
  return arch_.layers[i].moe ? MixtureMlp(i, step, stream) : DenseMlp(i, step, stream);
}

absl::Status Transformer::AttentionBlock(int32_t i, const Step& step, kernels::Stream stream) {
  const LayerWeights& w = weights_.layers[i];
  const LayerShape& layer = arch_.layers[i];
  const RopeTable& rope = arch_.ropes[layer.rope];
  RETURN_IF_ERROR(Launched(ops_.AttentionInput({.rows = step.rows,
                                                .x = act_.residual,
                                                .norm = w.attention_norm,
                                                .eps = arch_.norm_eps,
                                                .qkv = w.qkv,
                                                .bias = w.qkv_bias,
                                                .q_norm = w.q_norm,
                                                .k_norm = w.k_norm,
                                                .q_heads = arch_.q_heads,
                                                .kv_heads = arch_.kv_heads,
                                                .head_dim = arch_.head_dim,
                                                .rope = {ropes_[layer.rope], rope.dim, rope.scale},
                                                .kv = step.kv[i],
                                                .q = act_.q},
                                               act_.scratch, stream),
                           "AttentionInput"));
  RETURN_IF_ERROR(Launched(ops_.Attention({.rows = step.rows,
                                           .q = act_.q,
                                           .q_heads = arch_.q_heads,
                                           .kv_heads = arch_.kv_heads,
                                           .head_dim = arch_.head_dim,
                                           .scale = arch_.attention_scale,
                                           .window = layer.window,
                                           .sinks = w.sinks,
                                           .kv = step.kv[i],
                                           .out = act_.attention},
                                          act_.scratch, stream),
                           "Attention"));
  RETURN_IF_ERROR(Project(act_.attention, w.o, w.o_bias, step, stream));
  return AddBranch(w.post_attention_norm, step, stream);
}

absl::Status Transformer::DenseMlp(int32_t i, const Step& step, kernels::Stream stream) {
  const LayerWeights& w = weights_.layers[i];
  RETURN_IF_ERROR(Launched(ops_.MlpInput({.rows = step.rows.rows,
                                          .x = act_.residual,
                                          .norm = w.mlp_norm,
                                          .eps = arch_.norm_eps,
                                          .gate_up = w.gate_up,
                                          .bias = w.gate_up_bias,
                                          .activation = arch_.activation,
                                          .out = act_.mlp},
                                         act_.scratch, stream),
                           "MlpInput"));
  RETURN_IF_ERROR(Project(act_.mlp, w.down, w.down_bias, step, stream));
  return AddBranch(w.post_mlp_norm, step, stream);
}

absl::Status Transformer::MixtureMlp(int32_t i, const Step& step, kernels::Stream stream) {
  const LayerWeights& w = weights_.layers[i];
  RETURN_IF_ERROR(Route(w, step, stream));
  RETURN_IF_ERROR(Launched(ops_.MoeExperts({.rows = step.rows.rows,
                                            .x = act_.hidden,
                                            .ids = act_.expert_ids,
                                            .weights = act_.expert_weights,
                                            .chosen = arch_.moe.chosen,
                                            .gate_up = w.experts_gate_up,
                                            .gate_up_bias = w.experts_gate_up_bias,
                                            .down = w.experts_down,
                                            .down_bias = w.experts_down_bias,
                                            .shared_gate_up = w.shared_gate_up,
                                            .shared_down = w.shared_down,
                                            .shared_inner = act_.mlp,
                                            .activation = arch_.activation,
                                            .accumulate = !arch_.post_norms,
                                            .out = BranchTarget()},
                                           act_.scratch, stream),
                           "MoeExperts"));
  return AddBranch(w.post_mlp_norm, step, stream);
}

// hidden = norm(residual); the experts of every row and their weights.
absl::Status Transformer::Route(const LayerWeights& w, const Step& step, kernels::Stream stream) {
  const MoeShape& moe = arch_.moe;
  return Launched(ops_.MoeRoute({.rows = step.rows.rows,
                                 .x = act_.residual,
                                 .norm = w.mlp_norm,
                                 .eps = arch_.norm_eps,
                                 .router = w.router,
                                 .bias = w.router_bias,
                                 .correction = w.router_correction,
                                 .routing = moe.routing,
                                 .chosen = moe.chosen,
                                 .groups = moe.groups,
                                 .best_groups = moe.best_groups,
                                 .normalize = moe.normalize,
                                 .scale = moe.scale,
                                 .normed = act_.hidden,
                                 .ids = act_.expert_ids,
                                 .weights = act_.expert_weights},
                                act_.scratch, stream),
                  "MoeRoute");
}

// Where a block's output goes: straight onto the residual, or aside to be normed first.
void* Transformer::BranchTarget() const { return arch_.post_norms ? act_.branch : act_.residual; }

absl::Status Transformer::Project(const void* x, const kernels::Matrix& w, const float* bias,
                                  const Step& step, kernels::Stream stream) {
  return Launched(ops_.Linear({.rows = step.rows.rows,
                               .x = x,
                               .w = w,
                               .bias = bias,
                               .accumulate = !arch_.post_norms,
                               .out = BranchTarget()},
                              act_.scratch, stream),
                  "Linear");
}

absl::Status Transformer::AddBranch(const float* norm, const Step& step, kernels::Stream stream) {
  if (!arch_.post_norms) return absl::OkStatus();  // it is on the residual already
  return Launched(ops_.PostNormAdd({.rows = step.rows.rows,
                                    .width = arch_.hidden,
                                    .x = act_.branch,
                                    .norm = norm,
                                    .eps = arch_.norm_eps,
                                    .residual = act_.residual},
                                   act_.scratch, stream),
                  "PostNormAdd");
}

absl::Status Transformer::LogitTile(const Step& step, int32_t first, int32_t count,
                                    kernels::Stream stream) {
  RETURN_IF_ERROR(Launched(ops_.Head({.count = count,
                                      .row = step.logit_row + first,
                                      .x = act_.residual,
                                      .norm = weights_.final_norm,
                                      .eps = arch_.norm_eps,
                                      .w = weights_.head,
                                      .softcap = arch_.logit_softcap,
                                      .logits = act_.logits},
                                     act_.scratch, stream),
                           "Head"));
  if (step.any_draw) {
    RETURN_IF_ERROR(Launched(ops_.Sample({.count = count,
                                          .vocabulary = arch_.vocabulary,
                                          .logits = act_.logits,
                                          .rows = step.sampling + first,
                                          .tokens = step.tokens,
                                          .ids = step.drawn + first},
                                         act_.scratch, stream),
                             "Sample"));
  }
  return TileLogprobs(step, first, count, stream);
}

absl::Status Transformer::TileLogprobs(const Step& step, int32_t first, int32_t count,
                                       kernels::Stream stream) {
  if (!step.any_logprobs) return absl::OkStatus();
  const int64_t tops = int64_t{first} * step.top_logprobs;
  return Launched(ops_.Logprobs({.count = count,
                                 .vocabulary = arch_.vocabulary,
                                 .logits = act_.logits,
                                 .rows = step.sampling + first,
                                 .tokens = step.tokens,
                                 .top = step.top_logprobs,
                                 .logprob = step.logprob + first,
                                 .top_ids = step.top_ids + tops,
                                 .top_logprobs = step.top_logprob + tops},
                                act_.scratch, stream),
                  "Logprobs");
}

}  // namespace switchyard::worker
