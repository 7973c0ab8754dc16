#include <algorithm>
#include <cfloat>
#include <cmath>
#include <map>
#include <numeric>

#include "kernels/philox.h"
#include "tests/reference/reference_parts.h"

namespace switchyard::kernels {
namespace {

// Token ids by falling value, lower id first where equal.
std::vector<int32_t> Order(const std::vector<double>& values) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return values[a] > values[b]; });
  return order;
}

// Softmax over those tokens that are kept.
std::vector<double> Softmax(const std::vector<double>& x, const std::vector<bool>& kept) {
  double largest = -1e300, sum = 0;
  for (size_t i = 0; i < x.size(); ++i) largest = kept[i] ? std::max(largest, x[i]) : largest;
  std::vector<double> p(x.size());
  for (size_t i = 0; i < x.size(); ++i) sum += p[i] = kept[i] ? std::exp(x[i] - largest) : 0;
  for (double& v : p) v /= sum;
  return p;
}

bool IsAnswer(const float* logits, int32_t vocabulary) {
  bool any = false;
  for (int32_t i = 0; i < vocabulary; ++i) {
    if (std::isnan(logits[i]) || logits[i] == INFINITY) return false;
    any |= logits[i] != -INFINITY;
  }
  return any;
}

}  // namespace

std::vector<double> ReferenceDistribution(const SamplingRow& row, const float* logits,
                                          int32_t vocabulary, const int32_t* history) {
  std::vector<double> x(logits, logits + vocabulary);
  std::map<int32_t, int32_t> outputs;  // of every token seen: how often in the output
  for (int32_t i = 0; i <= row.position; ++i) outputs[history[i]] += i >= row.prompt_length ? 1 : 0;
  for (const auto& [token, count] : outputs) {
    x[token] = x[token] > 0 ? x[token] / row.repetition_penalty : x[token] * row.repetition_penalty;
    x[token] -= row.frequency_penalty * count + (count > 0 ? row.presence_penalty : 0);
    if (x[token] != -INFINITY) x[token] = std::clamp(x[token], -double{FLT_MAX}, double{FLT_MAX});
  }
  const std::vector<int32_t> order = Order(x);
  if (row.temperature == 0) {
    std::vector<double> p(vocabulary);
    p[order[0]] = 1;
    return p;
  }
  for (double& v : x) v /= row.temperature;
  std::vector<bool> kept(vocabulary, true);
  if (row.top_k > 0) {
    for (int32_t i = row.top_k; i < vocabulary; ++i) kept[order[i]] = false;
  }
  if (row.top_p < 1) {
    const std::vector<double> p = Softmax(x, kept);
    double before = 0;
    for (int32_t i = 0; i < vocabulary; ++i) {
      if (i > 0 && before >= row.top_p) kept[order[i]] = false;
      before += p[order[i]];
    }
  }
  std::vector<double> p = Softmax(x, kept);
  const double best = p[order[0]];
  for (int32_t i = 0; i < vocabulary; ++i) kept[i] = kept[i] && p[i] >= row.min_p * best;
  return Softmax(x, kept);
}

void ReferenceSample(const SampleArgs& a) {
  for (int32_t r = 0; r < a.count; ++r) {
    const SamplingRow& row = a.rows[r];
    a.ids[r] = -1;
    if (row.draw == 0 || row.slot < 0) continue;
    int32_t* history = a.tokens.ids + int64_t{row.slot} * a.tokens.stride;
    const float* logits = a.logits + int64_t{r} * a.vocabulary;
    if (!IsAnswer(logits, a.vocabulary)) {
      a.ids[r] = kNotNumbers;
      history[row.position + 1] = 0;
      continue;
    }
    const std::vector<double> p = ReferenceDistribution(row, logits, a.vocabulary, history);
    double best = -1e300;
    for (int32_t i = 0; i < a.vocabulary; ++i) {
      if (p[i] <= 0) continue;
      const double u = (SamplingBits(row.seed, row.position + 1, i) + 0.5) / 4294967296.0;
      const double score = std::log(p[i]) - std::log(-std::log(u));
      if (score > best) {
        best = score;
        a.ids[r] = i;
      }
    }
    history[row.position + 1] = a.ids[r];
  }
}

void ReferenceLogprobs(const LogprobArgs& a) {
  for (int64_t r = 0; r < a.count; ++r) {
    const SamplingRow& row = a.rows[r];
    if (row.slot < 0) continue;
    if (!IsAnswer(a.logits + r * a.vocabulary, a.vocabulary)) {
      a.logprob[r] = NAN;
      std::fill_n(a.top_ids + r * a.top, a.top, -1);
      std::fill_n(a.top_logprobs + r * a.top, a.top, NAN);
      continue;
    }
    const std::vector<double> x = Widen(a.logits + r * a.vocabulary, a.vocabulary);
    const std::vector<double> p = Softmax(x, std::vector<bool>(a.vocabulary, true));
    const int32_t id = a.tokens.ids[int64_t{row.slot} * a.tokens.stride + row.position + 1];
    a.logprob[r] = static_cast<float>(std::log(p[id]));
    const std::vector<int32_t> order = Order(x);
    for (int32_t i = 0; i < a.top; ++i) {
      a.top_ids[r * a.top + i] = order[i];
      a.top_logprobs[r * a.top + i] = static_cast<float>(std::log(p[order[i]]));
    }
  }
}

}  // namespace switchyard::kernels
