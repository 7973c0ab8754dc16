// MoeRoute and MoeExperts against the reference.

#include <gtest/gtest.h>

#include "tests/kernels/test_data.h"
#include "tests/reference/reference_ops.h"

namespace switchyard::kernels {
namespace {

struct Case {
  int32_t rows, experts, chosen;
  Routing routing;
  int32_t groups = 1, best_groups = 1;
  bool normalize = false;
  float scale = 1.0f;
};
const Case kCases[] = {
    {1, 1, 1, Routing::kSoftmaxTopK},
    {1, 8, 2, Routing::kSoftmaxTopK, 1, 1, true},
    {33, 16, 4, Routing::kTopKSoftmax},
    {50, 128, 8, Routing::kSoftmaxTopK, 1, 1, true},
    {7, 12, 3, Routing::kSoftmaxTopK},
    {9, 16, 4, Routing::kSigmoidGroups, 4, 2, true, 2.5f},
    {40, 24, 5, Routing::kSigmoidGroups, 3, 2, false, 1.5f},
    {3, 6, 3, Routing::kSigmoidGroups, 6, 4, true, 1.0f},
    {70, 3, 2, Routing::kSigmoidGroups, 1, 1, true, 1.0f},
};

class MoeTest : public ::testing::TestWithParam<std::tuple<Case, int>> {
 protected:
  const Case case_ = std::get<0>(GetParam());
  std::unique_ptr<Ops> ops_ = MakeCpuOps(std::get<1>(GetParam()));
  std::unique_ptr<Ops> reference_ = MakeReferenceOps();
  Random random_{static_cast<uint32_t>(case_.rows * 131 + case_.experts)};
  const int32_t hidden_ = 44, intermediate_ = 37;

  ScratchShape Need() {
    ScratchShape need;
    need.rows = case_.rows;
    need.hidden = hidden_;
    need.experts = case_.experts;
    need.chosen = case_.chosen;
    need.expert_intermediate = intermediate_;
    return need;
  }
};

TEST_P(MoeTest, Route) {
  const Case& c = case_;
  const TestMatrix router = RandomMatrix(random_, DType::kF32, c.experts, hidden_, 1, 0.3f);
  const std::vector<float> x = RandomVector(random_, c.rows * hidden_);
  const std::vector<float> norm = RandomVector(random_, hidden_);
  const std::vector<float> bias = RandomVector(random_, c.experts);
  MoeRouteArgs args = {c.rows, x.data(), norm.data(), 1e-6f, router.matrix, bias.data()};
  args.correction = c.routing == Routing::kSigmoidGroups ? bias.data() : nullptr;
  args.routing = c.routing;
  args.chosen = c.chosen;
  args.groups = c.groups;
  args.best_groups = c.best_groups;
  args.normalize = c.normalize;
  args.scale = c.scale;
  const auto run = [&](Ops& ops, Scratch scratch, std::vector<float>& normed,
                       std::vector<int32_t>& ids, std::vector<float>& weights) {
    normed.resize(c.rows * hidden_);
    ids.resize(c.rows * c.chosen);
    weights.resize(c.rows * c.chosen);
    args.normed = normed.data();
    args.ids = ids.data();
    args.weights = weights.data();
    ASSERT_TRUE(ops.MoeRoute(args, scratch, nullptr).ok());
  };
  std::vector<float> normed, expected_normed, weights, expected_weights;
  std::vector<int32_t> ids, expected_ids;
  TestScratch scratch(*ops_, Need());
  run(*ops_, scratch, normed, ids, weights);
  run(*reference_, {}, expected_normed, expected_ids, expected_weights);
  ExpectClose(expected_normed, normed, 4e-6, "normed");
  EXPECT_EQ(ids, expected_ids);
  ExpectClose(expected_weights, weights, 4e-6, "weights");
}

TEST_P(MoeTest, EqualExpertsGoToTheLowerId) {
  const Case& c = case_;
  const std::vector<float> zeros(c.experts * hidden_), x(c.rows * hidden_, 1.0f);
  const std::vector<float> norm(hidden_, 1.0f);
  const Matrix router = {zeros.data(), DType::kF32, c.experts, hidden_};
  std::vector<float> normed(c.rows * hidden_), weights(c.rows * c.chosen);
  std::vector<int32_t> ids(c.rows * c.chosen);
  MoeRouteArgs args = {c.rows, x.data(), norm.data(), 1e-6f, router};
  args.routing = c.routing;
  args.chosen = c.chosen;
  args.groups = c.groups;
  args.best_groups = c.best_groups;
  args.normed = normed.data();
  args.ids = ids.data();
  args.weights = weights.data();
  TestScratch scratch(*ops_, Need());
  ASSERT_TRUE(ops_->MoeRoute(args, scratch, nullptr).ok());
  for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(ids[i], static_cast<int32_t>(i) % c.chosen);
}

TEST_P(MoeTest, Experts) {
  const Case& c = case_;
  const TestMatrix gate_up =
      RandomMatrix(random_, DType::kBF16, 2 * intermediate_, hidden_, c.experts, 0.3f);
  const TestMatrix down =
      RandomMatrix(random_, DType::kBF16, hidden_, intermediate_, c.experts, 0.3f);
  const std::vector<float> x = RandomVector(random_, c.rows * hidden_);
  const std::vector<float> bias = RandomVector(random_, 2 * intermediate_ * c.experts);
  const std::vector<float> down_bias = RandomVector(random_, hidden_ * c.experts);
  std::vector<int32_t> ids;
  for (int32_t r = 0; r < c.rows; ++r) {
    const int32_t first = static_cast<int32_t>(random_() % c.experts);
    for (int32_t i = 0; i < c.chosen; ++i) ids.push_back((first + i * i) % c.experts);
  }
  const std::vector<float> weights = RandomVector(random_, c.rows * c.chosen, 0.5f);
  TestScratch scratch(*ops_, Need());
  for (const bool all : {false, true}) {
    std::vector<float> actual = RandomVector(random_, c.rows * hidden_), expected = actual;
    MoeExpertsArgs args = ExpertsArgs(c.rows, c.chosen, x.data(), ids.data(), weights.data(),
                                      gate_up.matrix, down.matrix);
    args.gate_up_bias = all ? bias.data() : nullptr;
    args.down_bias = all ? down_bias.data() : nullptr;
    args.activation = all ? Activation::kSwigluClamped : Activation::kSilu;
    args.accumulate = all;
    args.out = actual.data();
    ASSERT_TRUE(ops_->MoeExperts(args, scratch, nullptr).ok());
    args.out = expected.data();
    ASSERT_TRUE(reference_->MoeExperts(args, {}, nullptr).ok());
    ExpectClose(expected, actual, 1e-4, "experts");
  }
}

TEST_P(MoeTest, SharedExpert) {
  const Case& c = case_;
  const auto matrix = [&](int64_t n, int64_t k, int64_t batch) {
    return RandomMatrix(random_, DType::kBF16, n, k, batch, 0.3f);
  };
  const TestMatrix gate_up = matrix(2 * intermediate_, hidden_, c.experts);
  const TestMatrix down = matrix(hidden_, intermediate_, c.experts);
  const std::vector<float> x = RandomVector(random_, c.rows * hidden_);
  const std::vector<float> weights = RandomVector(random_, c.rows * c.chosen, 0.5f);
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < c.rows * c.chosen; ++i) ids.push_back(i % c.experts);
  for (const int32_t inner : {intermediate_, 53}) {
    const TestMatrix shared_gate_up = matrix(2 * inner, hidden_, 1);
    const TestMatrix shared_down = matrix(hidden_, inner, 1);
    ScratchShape need = Need();
    need.intermediate = inner;
    TestScratch scratch(*ops_, need);
    std::vector<float> shared_inner(c.rows * inner);
    std::vector<float> actual = RandomVector(random_, c.rows * hidden_), expected = actual;
    MoeExpertsArgs args = ExpertsArgs(c.rows, c.chosen, x.data(), ids.data(), weights.data(),
                                      gate_up.matrix, down.matrix);
    args.shared_gate_up = shared_gate_up.matrix;
    args.shared_down = shared_down.matrix;
    args.shared_inner = shared_inner.data();
    args.accumulate = inner != intermediate_;
    args.out = actual.data();
    ASSERT_TRUE(ops_->MoeExperts(args, scratch, nullptr).ok());
    args.out = expected.data();
    ASSERT_TRUE(reference_->MoeExperts(args, {}, nullptr).ok());
    ExpectClose(expected, actual, 1e-4, "experts");
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, MoeTest,
                         ::testing::Combine(::testing::ValuesIn(kCases), ::testing::Values(1, 3)));

}  // namespace
}  // namespace switchyard::kernels
