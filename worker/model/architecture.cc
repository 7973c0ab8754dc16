#include "worker/model/architecture.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace switchyard::worker {
namespace {

int64_t AttentionParameters(const Architecture& a) {
  const int64_t q = int64_t{a.q_heads} * a.head_dim;
  const int64_t kv = int64_t{a.kv_heads} * a.head_dim;
  int64_t count = a.hidden * (q + 2 * kv) + q * a.hidden;
  if (a.qkv_bias) count += q + 2 * kv;
  if (a.o_bias) count += a.hidden;
  if (a.qk_norm) count += 2 * a.head_dim;
  if (a.sinks) count += a.q_heads;
  return count;
}

int64_t DenseParameters(const Architecture& a) {
  int64_t count = 3 * int64_t{a.hidden} * a.intermediate;
  if (a.mlp_bias) count += 2 * int64_t{a.intermediate} + a.hidden;
  return count;
}

int64_t MixtureParameters(const Architecture& a) {
  const MoeShape& moe = a.moe;
  int64_t expert = 3 * int64_t{a.hidden} * moe.intermediate;
  if (moe.expert_bias) expert += 2 * int64_t{moe.intermediate} + a.hidden;
  int64_t count = moe.experts * (a.hidden + expert);
  if (moe.router_bias) count += moe.experts;
  if (moe.correction) count += moe.experts;
  return count + 3 * int64_t{a.hidden} * moe.shared_intermediate;
}

}  // namespace

int64_t ParameterCount(const Architecture& a) {
  const int64_t norms = (a.post_norms ? 4 : 2) * int64_t{a.hidden};
  int64_t count = int64_t{a.vocabulary} * a.hidden * (a.tied_embeddings ? 1 : 2) + a.hidden;
  for (const LayerShape& layer : a.layers) {
    count += norms + AttentionParameters(a);
    count += layer.moe ? MixtureParameters(a) : DenseParameters(a);
  }
  return count;
}

std::string Describe(const Architecture& a) {
  const double count = static_cast<double>(ParameterCount(a));
  std::string text =
      absl::StrCat(a.family, ", ", a.layers.size(), a.layers.size() == 1 ? " layer" : " layers",
                   ", hidden ", a.hidden);
  if (a.moe.experts > 0) {
    absl::StrAppend(&text, ", ", a.moe.experts, " experts of which ", a.moe.chosen);
  }
  return absl::StrCat(text, ", ",
                      count >= 1e9   ? absl::StrFormat("%.1f B", count / 1e9)
                      : count >= 1e6 ? absl::StrFormat("%.1f M", count / 1e6)
                                     : absl::StrFormat("%.0f k", count / 1e3),
                      " parameters");
}

}  // namespace switchyard::worker
