#include "tests/gpu/bench_model.h"

namespace switchyard::bench {
namespace {

using kernels::Matrix;

constexpr float kBiasReach = 0.1f;

using Take = std::function<Matrix(const WeightFormat& format, int64_t n, int64_t k, int64_t batch)>;

// The one place that says which matrices a layer has.
void TakeMatrices(const Shape& s, const Forms& forms, int32_t i, const Take& take, RandomLayer& l) {
  const WeightFormat& format = forms.layers;
  const int64_t heads = int64_t{s.q_heads} + 2 * s.kv_heads;
  l.qkv = take(format, heads * s.head_dim, s.hidden, 1);
  l.o = take(format, s.hidden, int64_t{s.q_heads} * s.head_dim, 1);
  if (!IsMixture(s, i)) {
    l.gate_up = take(format, 2 * int64_t{s.inner}, s.hidden, 1);
    l.down = take(format, s.hidden, s.inner, 1);
    return;
  }
  const MixtureShape& m = s.mixture;
  l.router = take(kF32Weights, m.experts, s.hidden, 1);
  l.experts_gate_up = take(forms.experts, 2 * int64_t{m.inner}, s.hidden, m.experts);
  l.experts_down = take(forms.experts, s.hidden, m.inner, m.experts);
  if (m.shared_inner == 0) return;
  l.shared_gate_up = take(format, 2 * int64_t{m.shared_inner}, s.hidden, 1);
  l.shared_down = take(format, s.hidden, m.shared_inner, 1);
}

}  // namespace

int64_t ModelBytes(const Shape& shape, const Forms& forms) {
  int64_t bytes = 0;
  const Take count = [&](const WeightFormat& format, int64_t n, int64_t k, int64_t batch) {
    bytes += MatrixBytes(format, n, k, batch);
    return Matrix();
  };
  for (int i = 0; i < (shape.tied ? 1 : 2); ++i) {
    count(forms.head, shape.vocabulary, shape.hidden, 1);
  }
  RandomLayer unused;
  for (int32_t i = 0; i < shape.layers; ++i) TakeMatrices(shape, forms, i, count, unused);
  return bytes;
}

RandomModel::RandomModel(const Shape& shape, const Forms& forms, cudaStream_t stream)
    : pool_(stream), layers_(shape.layers) {
  const Take take = [&](const WeightFormat& format, int64_t n, int64_t k, int64_t batch) {
    return pool_.Take(format, n, k, batch);
  };
  for (int32_t i = 0; i < shape.layers; ++i) {
    TakeMatrices(shape, forms, i, take, layers_[i]);
    TakeVectors(shape, i);
  }
  head_ = take(forms.head, shape.vocabulary, shape.hidden, 1);
  embedding_ = shape.tied ? head_ : take(forms.head, shape.vocabulary, shape.hidden, 1);
  final_norm_ = pool_.TakeVector(shape.hidden, 1, 0);
}

void RandomModel::TakeVectors(const Shape& s, int32_t i) {
  RandomLayer& l = layers_[i];
  const auto norm = [&](bool has, const float*& to, int64_t count) {
    if (has) to = pool_.TakeVector(count, 1, 0);
  };
  const auto bias = [&](bool has, const float*& to, int64_t count) {
    if (has) to = pool_.TakeVector(count, 0, kBiasReach);
  };
  norm(true, l.attention_norm, s.hidden);
  norm(true, l.mlp_norm, s.hidden);
  norm(s.post_norms, l.post_attention_norm, s.hidden);
  norm(s.post_norms, l.post_mlp_norm, s.hidden);
  norm(s.qk_norm, l.q_norm, s.head_dim);
  norm(s.qk_norm, l.k_norm, s.head_dim);
  bias(s.sinks, l.sinks, s.q_heads);
  bias(s.qkv_bias, l.qkv_bias, l.qkv.n);
  bias(s.o_bias, l.o_bias, l.o.n);
  if (!IsMixture(s, i)) return;
  const MixtureShape& m = s.mixture;
  bias(m.router_bias, l.router_bias, m.experts);
  bias(m.correction, l.correction, m.experts);
  bias(m.expert_bias, l.gate_up_bias, l.experts_gate_up.n * m.experts);
  bias(m.expert_bias, l.down_bias, l.experts_down.n * m.experts);
}

}  // namespace switchyard::bench
