// MoeRoute and MoeExperts on the GPU against the reference.

#include <algorithm>
#include <set>

#include "tests/gpu/device_data.h"
#include "tests/reference/reference_parts.h"

namespace switchyard::kernels {
namespace {

struct Case {
  int32_t rows, experts, chosen;
  Routing routing;
  int32_t groups = 1, best_groups = 1;
  bool normalize = false;
  float scale = 1.0f;
  int32_t hidden = 48, intermediate = 40;
};
const Case kCases[] = {
    {1, 1, 1, Routing::kSoftmaxTopK},
    {1, 8, 2, Routing::kSoftmaxTopK, 1, 1, true},
    {33, 16, 4, Routing::kTopKSoftmax},
    {50, 128, 8, Routing::kSoftmaxTopK, 1, 1, true},
    {7, 12, 3, Routing::kSoftmaxTopK, 1, 1, false, 1.0f, 44, 37},
    {9, 16, 4, Routing::kSigmoidGroups, 4, 2, true, 2.5f},
    {40, 24, 5, Routing::kSigmoidGroups, 3, 2, false, 1.5f, 136, 264},
    {3, 6, 3, Routing::kSigmoidGroups, 6, 4, true, 1.0f},
    {70, 3, 2, Routing::kSigmoidGroups, 1, 1, true, 1.0f},
    {1100, 5, 2, Routing::kSoftmaxTopK, 1, 1, true},
    {1026, 5, 2, Routing::kSoftmaxTopK, 1, 1, true},
    {1, 20, 4, Routing::kSoftmaxTopK, 1, 1, true, 1.0f, 4136, 24},
    {5, 20, 4, Routing::kTopKSoftmax, 1, 1, false, 1.0f, 4136, 24},
    {128, 9, 3, Routing::kSigmoidGroups, 3, 2, true, 2.5f, 2880, 16},
    {129, 9, 3, Routing::kSoftmaxTopK, 1, 1, true, 1.0f, 2880, 16},
    {3, 4, 2, Routing::kSoftmaxTopK, 1, 1, true, 1.0f, 12296, 16},
    {1, 10, 8, Routing::kSigmoidGroups, 1, 1, true, 1.0f, 1096, 712},
    {2, 10, 8, Routing::kSigmoidGroups, 1, 1, true, 1.0f, 1096, 712},
    {2, 5, 3, Routing::kSoftmaxTopK, 1, 1, true, 1.0f, 264, 1160},
    // On 132 multiprocessors the down product sums up the experts: a tile and three by both teams
    // of a block, two by each of its teams.
    {1, 10, 8, Routing::kTopKSoftmax, 1, 1, true, 1.0f, 2056, 136},
    {1, 4, 2, Routing::kSoftmaxTopK, 1, 1, true, 1.0f, 6336, 40},
    {1, 4, 2, Routing::kSoftmaxTopK, 1, 1, true, 1.0f, 8448, 568},
};

using Ids = std::vector<int32_t>;

// What the oracle chooses a row's experts by.
std::vector<double> ScoresOf(const MoeRouteArgs& a, int64_t row) {
  const int64_t hidden = a.router.k;
  const std::vector<double> x =
      ReferenceNorm(static_cast<const float*>(a.x) + row * hidden, a.norm, a.eps, hidden);
  std::vector<double> scores;
  for (int64_t e = 0; e < a.router.n; ++e) {
    const double logit = ReferenceDot(a.router, 0, e, x.data()) + a.bias[e];
    scores.push_back(a.correction == nullptr ? logit
                                             : 1 / (1 + std::exp(-logit)) + a.correction[e]);
  }
  return scores;
}

// By groups: the scores that they are chosen by.
std::vector<double> GroupScores(const std::vector<double>& scores, int32_t groups) {
  const size_t size = scores.size() / groups;
  std::vector<double> of;
  for (auto at = scores.begin(); at != scores.end(); at += size) {
    std::vector<double> members(at, at + size);
    std::sort(members.rbegin(), members.rend());
    of.push_back(members[0] + (size > 1 ? members[1] : 0));
  }
  return of;
}

class GpuMoeTest : public GpuTest, public ::testing::WithParamInterface<Case> {
 protected:
  const Case case_ = GetParam();
  Random random_{static_cast<uint32_t>(case_.rows * 131 + case_.experts)};
  const float spread_ = 1 / std::sqrt(static_cast<float>(case_.hidden));

  // Whether scores that are off by what rounded inputs cost may lead to `ids` instead of what the
  // oracle chose: at each place stands an expert whose score is nearly that of the oracle's there.
  bool MayBeChosen(const std::vector<double>& scores, const Ids& oracle, const Ids& ids) const {
    if (std::set<int32_t>(ids.begin(), ids.end()).size() != ids.size()) return false;
    const bool sigmoid = case_.routing == Routing::kSigmoidGroups;
    const double off = sigmoid ? kDotOfRounded / 4 : kDotOfRounded;  // its slope is 1/4 at most
    if (case_.best_groups < case_.groups) {
      const std::vector<double> groups = GroupScores(scores, case_.groups);
      std::vector<double> sorted = groups;
      std::sort(sorted.rbegin(), sorted.rend());
      const double last = sorted[case_.best_groups - 1], next = sorted[case_.best_groups];
      // A group's score is two experts'. Where another may be open, so may any of its experts be.
      const size_t size = scores.size() / case_.groups;
      if (last - next <= 4 * off) {
        return std::all_of(ids.begin(), ids.end(),
                           [&](int32_t id) { return groups[id / size] >= last - 4 * off; });
      }
    }
    for (size_t i = 0; i < ids.size(); ++i) {
      if (std::fabs(scores[ids[i]] - scores[oracle[i]]) > 2 * off) return false;
    }
    return true;
  }

  ScratchShape Need() {
    ScratchShape need;
    need.rows = case_.rows;
    need.hidden = case_.hidden;
    need.experts = case_.experts;
    need.chosen = case_.chosen;
    need.expert_intermediate = case_.intermediate;
    return need;
  }
};

TEST_P(GpuMoeTest, Route) {
  const Case& c = case_;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const TestMatrix router = RandomMatrix(random_, dtype, c.experts, c.hidden, 1, spread_);
    DeviceMatrix device_router(router);
    const std::vector<float> x = RandomBf16(random_, c.rows * c.hidden);
    const std::vector<float> norm = RandomVector(random_, c.hidden);
    const std::vector<float> bias = RandomVector(random_, c.experts);
    DeviceBf16 device_x(x), device_normed(c.rows * c.hidden);
    DeviceArray<float> device_norm(norm), device_bias(bias), device_weights(c.rows * c.chosen);
    DeviceArray<int32_t> device_ids(c.rows * c.chosen);
    std::vector<float> normed(c.rows * c.hidden), weights(c.rows * c.chosen);
    std::vector<int32_t> ids(c.rows * c.chosen);
    const bool sigmoid = c.routing == Routing::kSigmoidGroups;
    MoeRouteArgs args = {c.rows, x.data(), norm.data(), 1e-6f, router.matrix, bias.data()};
    args.correction = sigmoid ? bias.data() : nullptr;
    args.routing = c.routing;
    args.chosen = c.chosen;
    args.groups = c.groups;
    args.best_groups = c.best_groups;
    args.normalize = c.normalize;
    args.scale = c.scale;
    args.normed = normed.data();
    args.ids = ids.data();
    args.weights = weights.data();
    ASSERT_TRUE(reference_->MoeRoute(args, {}, nullptr).ok());
    const MoeRouteArgs oracle = args;
    args.x = device_x.data();
    args.norm = device_norm.data();
    args.router = device_router.matrix;
    args.bias = device_bias.data();
    args.correction = sigmoid ? device_bias.data() : nullptr;
    args.normed = device_normed.data();
    args.ids = device_ids.data();
    args.weights = device_weights.data();
    DeviceScratch scratch(*ops_, Need());
    ASSERT_STREQ(ops_->MoeRoute(args, scratch, nullptr).message, nullptr);
    ExpectNear(normed, device_normed.GetFloats(), 1e-5, kBf16Epsilon, "normed");
    const std::vector<int32_t> actual_ids = device_ids.Get();
    const std::vector<float> actual = device_weights.Get();
    for (int64_t r = 0; r < c.rows; ++r) {
      const int64_t first = r * c.chosen;
      const Ids expected_row(ids.begin() + first, ids.begin() + first + c.chosen);
      const Ids actual_row(actual_ids.begin() + first, actual_ids.begin() + first + c.chosen);
      if (expected_row != actual_row) {
        EXPECT_TRUE(MayBeChosen(ScoresOf(oracle, r), expected_row, actual_row))
            << "row " << r << ": " << ::testing::PrintToString(actual_row) << ", not "
            << ::testing::PrintToString(expected_row);
        continue;
      }
      for (int64_t i = first; i < first + c.chosen; ++i) {
        EXPECT_NEAR(weights[i], actual[i], c.scale * kDotOfRounded) << "row " << r;
      }
    }
  }
}

TEST_P(GpuMoeTest, EqualExpertsGoToTheLowerId) {
  const Case& c = case_;
  DeviceBf16 zeros(std::vector<float>(c.experts * c.hidden));
  DeviceBf16 x(std::vector<float>(c.rows * c.hidden, 1.0f)), normed(c.rows * c.hidden);
  DeviceArray<float> norm(std::vector<float>(c.hidden, 1.0f)), weights(c.rows * c.chosen);
  DeviceArray<int32_t> ids(c.rows * c.chosen);
  MoeRouteArgs args = {
      c.rows, x.data(), norm.data(), 1e-6f, {zeros.data(), DType::kBF16, c.experts, c.hidden}};
  args.routing = c.routing;
  args.chosen = c.chosen;
  args.groups = c.groups;
  args.best_groups = c.best_groups;
  args.normed = normed.data();
  args.ids = ids.data();
  args.weights = weights.data();
  DeviceScratch scratch(*ops_, Need());
  ASSERT_STREQ(ops_->MoeRoute(args, scratch, nullptr).message, nullptr);
  const std::vector<int32_t> actual = ids.Get();
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_EQ(actual[i], static_cast<int32_t>(i) % c.chosen);
  }
}

TEST_P(GpuMoeTest, Experts) {
  const Case& c = case_;
  const TestMatrix gate_up =
      RandomMatrix(random_, DType::kBF16, 2 * c.intermediate, c.hidden, c.experts, spread_);
  const TestMatrix down = RandomMatrix(random_, DType::kBF16, c.hidden, c.intermediate, c.experts,
                                       1 / std::sqrt(static_cast<float>(c.intermediate)));
  DeviceMatrix device_gate_up(gate_up), device_down(down);
  const std::vector<float> x = RandomBf16(random_, c.rows * c.hidden);
  const std::vector<float> bias = RandomVector(random_, 2 * c.intermediate * c.experts);
  const std::vector<float> down_bias = RandomVector(random_, c.hidden * c.experts);
  std::vector<int32_t> ids;
  for (int32_t r = 0; r < c.rows; ++r) {
    const int32_t first = static_cast<int32_t>(random_() % c.experts);
    for (int32_t i = 0; i < c.chosen; ++i) ids.push_back((first + i * i) % c.experts);
  }
  const std::vector<float> weights = RandomVector(random_, c.rows * c.chosen, 0.5f);
  DeviceBf16 device_x(x);
  DeviceArray<float> device_bias(bias), device_down_bias(down_bias), device_weights(weights);
  DeviceArray<int32_t> device_ids(ids);
  DeviceScratch scratch(*ops_, Need());
  for (const bool all : {false, true}) {
    std::vector<float> expected = RandomBf16(random_, c.rows * c.hidden);
    DeviceBf16 out(expected);
    MoeExpertsArgs args = ExpertsArgs(c.rows, c.chosen, x.data(), ids.data(), weights.data(),
                                      gate_up.matrix, down.matrix);
    args.gate_up_bias = all ? bias.data() : nullptr;
    args.down_bias = all ? down_bias.data() : nullptr;
    args.activation = all ? Activation::kSwigluClamped : Activation::kSilu;
    args.accumulate = all;
    args.out = expected.data();
    ASSERT_TRUE(reference_->MoeExperts(args, {}, nullptr).ok());
    args.x = device_x.data();
    args.ids = device_ids.data();
    args.weights = device_weights.data();
    args.gate_up = device_gate_up.matrix;
    args.gate_up_bias = all ? device_bias.data() : nullptr;
    args.down = device_down.matrix;
    args.down_bias = all ? device_down_bias.data() : nullptr;
    args.out = out.data();
    ASSERT_STREQ(ops_->MoeExperts(args, scratch, nullptr).message, nullptr);
    // The activations between the products are rounded; up to eight experts add up.
    ExpectNear(expected, out.GetFloats(), 4 * kDotOfRounded, kBf16Epsilon, "experts");
  }
}

// Of the others' size, when it may be one more of a row's entries, and of another.
TEST_P(GpuMoeTest, SharedExpert) {
  const Case& c = case_;
  const auto matrix = [&](int64_t n, int64_t k, int64_t batch) {
    return RandomMatrix(random_, DType::kBF16, n, k, batch, 1 / std::sqrt(static_cast<float>(k)));
  };
  const TestMatrix gate_up = matrix(2 * c.intermediate, c.hidden, c.experts);
  const TestMatrix down = matrix(c.hidden, c.intermediate, c.experts);
  DeviceMatrix device_gate_up(gate_up), device_down(down);
  const std::vector<float> x = RandomBf16(random_, c.rows * c.hidden);
  const std::vector<float> weights = RandomVector(random_, c.rows * c.chosen, 0.5f);
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < c.rows * c.chosen; ++i) ids.push_back(i * 7 % c.experts);
  DeviceBf16 device_x(x);
  DeviceArray<float> device_weights(weights);
  DeviceArray<int32_t> device_ids(ids);
  for (const int32_t inner : {c.intermediate, c.intermediate + 24}) {
    const TestMatrix shared_gate_up = matrix(2 * inner, c.hidden, 1);
    const TestMatrix shared_down = matrix(c.hidden, inner, 1);
    DeviceMatrix device_shared_gate_up(shared_gate_up), device_shared_down(shared_down);
    DeviceBf16 shared_inner(c.rows * inner);
    ScratchShape need = Need();
    need.intermediate = inner;
    DeviceScratch scratch(*ops_, need);
    std::vector<float> expected = RandomBf16(random_, c.rows * c.hidden);
    std::vector<float> before = expected;
    MoeExpertsArgs args = ExpertsArgs(c.rows, c.chosen, x.data(), ids.data(), weights.data(),
                                      gate_up.matrix, down.matrix);
    args.shared_gate_up = shared_gate_up.matrix;
    args.shared_down = shared_down.matrix;
    args.accumulate = true;
    args.out = expected.data();
    ASSERT_TRUE(reference_->MoeExperts(args, {}, nullptr).ok());
    args.x = device_x.data();
    args.ids = device_ids.data();
    args.weights = device_weights.data();
    args.gate_up = device_gate_up.matrix;
    args.down = device_down.matrix;
    args.shared_gate_up = device_shared_gate_up.matrix;
    args.shared_down = device_shared_down.matrix;
    args.shared_inner = shared_inner.data();
    std::vector<std::vector<float>> actual;
    for (int time = 0; time < 2; ++time) {
      DeviceBf16 out(before);
      args.out = out.data();
      ASSERT_STREQ(ops_->MoeExperts(args, scratch, nullptr).message, nullptr);
      actual.push_back(out.GetFloats());
    }
    ExpectNear(expected, actual[0], 4 * kDotOfRounded, 2 * kBf16Epsilon, "experts");
    EXPECT_EQ(actual[0], actual[1]);
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, GpuMoeTest, ::testing::ValuesIn(kCases));

}  // namespace
}  // namespace switchyard::kernels
