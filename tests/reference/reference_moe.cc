#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/reference/reference_parts.h"

namespace switchyard::kernels {
namespace {

// Indices of the `count` largest, best first, lower index first where equal.
std::vector<int32_t> Largest(const std::vector<double>& values, int64_t count) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int32_t a, int32_t b) { return values[a] > values[b]; });
  order.resize(count);
  return order;
}

std::vector<double> Softmax(const std::vector<double>& x) {
  const double largest = *std::max_element(x.begin(), x.end());
  double sum = 0;
  for (double v : x) sum += std::exp(v - largest);
  std::vector<double> out;
  for (double v : x) out.push_back(std::exp(v - largest) / sum);
  return out;
}

std::vector<double> Pick(const std::vector<double>& values, const std::vector<int32_t>& ids) {
  std::vector<double> out;
  for (int32_t id : ids) out.push_back(values[id]);
  return out;
}

}  // namespace

void ReferenceMoeRoute(const MoeRouteArgs& a) {
  const int64_t hidden = a.router.k, experts = a.router.n;
  for (int64_t t = 0; t < a.rows; ++t) {
    const std::vector<double> x =
        ReferenceNorm(static_cast<const float*>(a.x) + t * hidden, a.norm, a.eps, hidden);
    for (int64_t i = 0; i < hidden; ++i) {
      static_cast<float*>(a.normed)[t * hidden + i] = static_cast<float>(x[i]);
    }
    std::vector<double> logits;
    for (int64_t e = 0; e < experts; ++e) {
      logits.push_back(ReferenceDot(a.router, 0, e, x.data()) +
                       (a.bias != nullptr ? a.bias[e] : 0));
    }
    std::vector<int32_t> ids;
    std::vector<double> weights;
    if (a.routing == Routing::kTopKSoftmax) {
      ids = Largest(logits, a.chosen);
      weights = Softmax(Pick(logits, ids));
    } else if (a.routing == Routing::kSoftmaxTopK) {
      const std::vector<double> p = Softmax(logits);
      ids = Largest(p, a.chosen);
      weights = Pick(p, ids);
      const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
      for (double& w : weights) w /= a.normalize ? sum : 1;
    } else {
      std::vector<double> scores, choice, group_scores;
      for (int64_t e = 0; e < experts; ++e) {
        scores.push_back(1 / (1 + std::exp(-logits[e])));
        choice.push_back(scores[e] + (a.correction != nullptr ? a.correction[e] : 0));
      }
      const int64_t size = experts / a.groups;
      for (int64_t g = 0; g < a.groups; ++g) {
        std::vector<double> members(choice.begin() + g * size, choice.begin() + (g + 1) * size);
        std::sort(members.rbegin(), members.rend());
        group_scores.push_back(members[0] + (size > 1 ? members[1] : 0));
      }
      std::vector<double> open(experts, -1e300);
      for (int32_t g : Largest(group_scores, a.best_groups)) {
        for (int64_t e = g * size; e < (g + 1) * size; ++e) open[e] = choice[e];
      }
      ids = Largest(open, a.chosen);
      weights = Pick(scores, ids);
      const double sum = std::accumulate(weights.begin(), weights.end(), 1e-20);
      for (double& w : weights) w = w / (a.normalize ? sum : 1) * a.scale;
    }
    for (int64_t c = 0; c < a.chosen; ++c) {
      a.ids[t * a.chosen + c] = ids[c];
      a.weights[t * a.chosen + c] = static_cast<float>(weights[c]);
    }
  }
}

namespace {

// activation(gate_up_e x), biased.
std::vector<double> Inner(const Matrix& gate_up, const float* bias, Activation activation,
                          int64_t e, const std::vector<double>& x) {
  const int64_t intermediate = gate_up.n / 2;
  std::vector<double> inner(intermediate);
  for (int64_t i = 0; i < intermediate; ++i) {
    double gate = ReferenceDot(gate_up, e, i, x.data());
    double up = ReferenceDot(gate_up, e, intermediate + i, x.data());
    if (bias != nullptr) {
      gate += bias[e * 2 * intermediate + i];
      up += bias[e * 2 * intermediate + intermediate + i];
    }
    inner[i] = ReferenceActivation(activation, gate, up);
  }
  return inner;
}

}  // namespace

void ReferenceMoeExperts(const MoeExpertsArgs& a) {
  const int64_t hidden = a.gate_up.k;
  for (int64_t t = 0; t < a.rows; ++t) {
    const std::vector<double> x = Widen(static_cast<const float*>(a.x) + t * hidden, hidden);
    std::vector<double> sum(hidden);
    for (int64_t c = 0; c < a.chosen; ++c) {
      const int64_t e = a.ids[t * a.chosen + c];
      const std::vector<double> inner = Inner(a.gate_up, a.gate_up_bias, a.activation, e, x);
      for (int64_t n = 0; n < hidden; ++n) {
        const double y = ReferenceDot(a.down, e, n, inner.data()) +
                         (a.down_bias != nullptr ? a.down_bias[e * hidden + n] : 0);
        sum[n] += a.weights[t * a.chosen + c] * y;
      }
    }
    if (a.shared_gate_up.data != nullptr) {
      const std::vector<double> inner = Inner(a.shared_gate_up, nullptr, a.activation, 0, x);
      for (int64_t n = 0; n < hidden; ++n)
        sum[n] += ReferenceDot(a.shared_down, 0, n, inner.data());
    }
    for (int64_t n = 0; n < hidden; ++n) {
      float& out = static_cast<float*>(a.out)[t * hidden + n];
      out = static_cast<float>(a.accumulate ? out + sum[n] : sum[n]);
    }
  }
}

}  // namespace switchyard::kernels
