#include "tests/gpu/bench_chain.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "tests/gpu/bench_read.h"

namespace switchyard::bench {

using kernels::Matrix;
using kernels::OpError;

namespace {

constexpr float kEps = 1e-5f;

void Launched(OpError error, const char* op) {
  if (error.ok()) return;
  std::fprintf(stderr, "%s: %s\n", op, error.message);
  std::exit(1);
}

}  // namespace

void Chain::Launch(kernels::Ops& ops, const Parts& parts) {
  if (parts.embed) {
    Launched(ops.Embed({.rows = step_, .tokens = tokens_, .table = model_.embedding(), .out = x_},
                       scratch_, stream_),
             "Embed");
  }
  for (int32_t i = 0; i < shape_.layers; ++i) {
    LaunchAttention(ops, parts, i);
    if (IsMixture(shape_, i)) {
      LaunchMixture(ops, parts, i);
    } else {
      LaunchDense(ops, parts, i);
    }
  }
  if (parts.head) {
    Launched(ops.Head({.count = sequences_,
                       .row = head_row_,
                       .x = x_,
                       .norm = model_.final_norm(),
                       .eps = kEps,
                       .w = model_.head(),
                       .logits = logits_},
                      scratch_, stream_),
             "Head");
  }
  if (parts.sample) {
    Launched(ops.Sample({.count = sequences_,
                         .vocabulary = shape_.vocabulary,
                         .logits = logits_,
                         .rows = sampling_,
                         .tokens = tokens_,
                         .ids = ids_},
                        scratch_, stream_),
             "Sample");
  }
}

void Chain::LaunchAttention(kernels::Ops& ops, const Parts& parts, int32_t i) {
  const RandomLayer& l = model_.layer(i);
  const kernels::KvView kv = KvOf(i);
  if (parts.attention_input) {
    Launched(ops.AttentionInput({.rows = step_,
                                 .x = x_,
                                 .norm = l.attention_norm,
                                 .eps = kEps,
                                 .qkv = l.qkv,
                                 .bias = l.qkv_bias,
                                 .q_norm = l.q_norm,
                                 .k_norm = l.k_norm,
                                 .q_heads = shape_.q_heads,
                                 .kv_heads = shape_.kv_heads,
                                 .head_dim = shape_.head_dim,
                                 .rope = {inv_freq_, shape_.rope_dim, 1.0f},
                                 .kv = kv,
                                 .q = q_},
                                scratch_, stream_),
             "AttentionInput");
  }
  if (parts.attention) {
    Launched(ops.Attention({.rows = step_,
                            .q = q_,
                            .q_heads = shape_.q_heads,
                            .kv_heads = shape_.kv_heads,
                            .head_dim = shape_.head_dim,
                            .scale = 0.088388f,
                            .window = WindowOf(shape_, i),
                            .sinks = l.sinks,
                            .kv = kv,
                            .out = attention_},
                           scratch_, stream_),
             "Attention");
  }
  if (parts.output) {
    Launched(ops.Linear({.rows = rows_,
                         .x = attention_,
                         .w = l.o,
                         .bias = l.o_bias,
                         .accumulate = !shape_.post_norms,
                         .out = BranchTarget()},
                        scratch_, stream_),
             "Linear (o)");
  }
  LaunchPostNorm(ops, parts, l.post_attention_norm);
}

void Chain::LaunchDense(kernels::Ops& ops, const Parts& parts, int32_t i) {
  const RandomLayer& l = model_.layer(i);
  if (parts.mlp) {
    Launched(ops.MlpInput({.rows = rows_,
                           .x = x_,
                           .norm = l.mlp_norm,
                           .eps = kEps,
                           .gate_up = l.gate_up,
                           .activation = shape_.activation,
                           .out = inner_},
                          scratch_, stream_),
             "MlpInput");
  }
  if (parts.down) {
    Launched(ops.Linear({.rows = rows_,
                         .x = inner_,
                         .w = l.down,
                         .accumulate = !shape_.post_norms,
                         .out = BranchTarget()},
                        scratch_, stream_),
             "Linear (down)");
  }
  LaunchPostNorm(ops, parts, l.post_mlp_norm);
}

void Chain::LaunchMixture(kernels::Ops& ops, const Parts& parts, int32_t i) {
  const RandomLayer& l = model_.layer(i);
  const MixtureShape& m = shape_.mixture;
  int32_t* ids = expert_ids_ + int64_t{i} * rows_ * m.chosen;
  float* weights = expert_weights_ + int64_t{i} * rows_ * m.chosen;
  if (parts.route) {
    Launched(ops.MoeRoute({.rows = rows_,
                           .x = x_,
                           .norm = l.mlp_norm,
                           .eps = kEps,
                           .router = l.router,
                           .bias = l.router_bias,
                           .correction = l.correction,
                           .routing = m.routing,
                           .chosen = m.chosen,
                           .normalize = m.normalize,
                           .normed = normed_,
                           .ids = ids,
                           .weights = weights},
                          scratch_, stream_),
             "MoeRoute");
  }
  if (parts.experts) {
    Launched(ops.MoeExperts({.rows = rows_,
                             .x = normed_,
                             .ids = ids,
                             .weights = weights,
                             .chosen = m.chosen,
                             .gate_up = l.experts_gate_up,
                             .gate_up_bias = l.gate_up_bias,
                             .down = l.experts_down,
                             .down_bias = l.down_bias,
                             .shared_gate_up = l.shared_gate_up,
                             .shared_down = l.shared_down,
                             .shared_inner = inner_,
                             .activation = shape_.activation,
                             .accumulate = !shape_.post_norms,
                             .out = BranchTarget()},
                            scratch_, stream_),
             "MoeExperts");
  }
  LaunchPostNorm(ops, parts, l.post_mlp_norm);
}

void Chain::LaunchPostNorm(kernels::Ops& ops, const Parts& parts, const float* norm) {
  if (!shape_.post_norms || !parts.post_norms) return;
  Launched(ops.PostNormAdd({.rows = rows_,
                            .width = shape_.hidden,
                            .x = branch_,
                            .norm = norm,
                            .eps = kEps,
                            .residual = x_},
                           scratch_, stream_),
           "PostNormAdd");
}

kernels::KvView Chain::KvOf(int32_t i) const {
  kernels::KvView kv = kv_;
  kv.key_offset = i * 2 * kv_.value_offset;
  kv.value_offset = kv.key_offset + kv_.value_offset;
  return kv;
}

double Chain::SumOfLayers(const Parts& parts,
                          const std::function<double(const Matrix&)>& of) const {
  double sum = 0;
  for (int32_t i = 0; i < shape_.layers; ++i) {
    const RandomLayer& l = model_.layer(i);
    if (parts.attention_input) sum += of(l.qkv);
    if (parts.output) sum += of(l.o);
    if (parts.mlp) sum += of(l.gate_up);
    if (parts.down) sum += of(l.down);
    if (!IsMixture(shape_, i)) continue;
    const MixtureShape& m = shape_.mixture;
    if (parts.route) sum += of(l.router);
    if (parts.experts) {
      sum += (of(l.experts_gate_up) + of(l.experts_down)) / m.experts * m.chosen;
      if (m.shared_inner > 0) sum += of(l.shared_gate_up) + of(l.shared_down);
    }
  }
  return sum;
}

int64_t Chain::ProductBytes(const Parts& parts) const {
  const double layers =
      SumOfLayers(parts, [](const Matrix& m) { return static_cast<double>(MatrixBytes(m)); });
  return static_cast<int64_t>(layers) + (parts.head ? MatrixBytes(model_.head()) : 0);
}

double Chain::ProductFlops(const Parts& parts) const {
  const auto products = [](const Matrix& m) { return 2.0 * m.n * m.k * m.batch; };
  return SumOfLayers(parts, products) * rows_ +
         (parts.head ? products(model_.head()) * sequences_ : 0);
}

int64_t Chain::KvBytes() const {
  int64_t positions = 0;  // of one sequence, over all layers
  for (int32_t i = 0; i < shape_.layers; ++i) {
    const int32_t window = WindowOf(shape_, i);
    positions += window > 0 ? std::min(window, context_) : context_;
  }
  return sequences_ * positions * 2 * shape_.kv_heads *
         kernels::DTypeBytes(kv_.dtype, shape_.head_dim);
}

double Chain::AttentionFlops() const {
  return 2.0 * rows_ * (rows_ + 1) * shape_.q_heads * shape_.head_dim * shape_.layers;
}

void Chain::Filter(int32_t top_k, float top_p) {
  for (kernels::SamplingRow& row : sampling_rows_) {
    row.top_k = top_k;
    row.top_p = top_p;
  }
  Check(cudaMemcpy(sampling_, sampling_rows_.data(),
                   sampling_rows_.size() * sizeof(kernels::SamplingRow), cudaMemcpyHostToDevice),
        "copy");
}

}  // namespace switchyard::bench
