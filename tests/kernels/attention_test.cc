// AttentionInput and Attention against the reference: head sizes, head ratios, windows, sinks, q
// and k norms, partial rotation, batches of sequences of different lengths.

#include <gtest/gtest.h>

#include "tests/kernels/test_data.h"
#include "tests/reference/reference_ops.h"

namespace switchyard::kernels {
namespace {

struct Case {
  int32_t head_dim, kv_heads, ratio, window;
  bool sinks;
  DType kv = DType::kF32;
};
const Case kCases[] = {
    {16, 2, 1, 0, false},
    {24, 1, 3, 0, true},
    {40, 3, 4, 5, false},
    {64, 2, 8, 128, true},
    {80, 2, 4, 0, false},
    {128, 2, 4, 300, false},
    {256, 1, 2, 0, false},
    {64, 1, 30, 0, false},
    {64, 2, 4, 16, true, DType::kBF16},
    {48, 2, 3, 0, false, DType::kBF16},
};

class AttentionTest : public ::testing::TestWithParam<std::tuple<Case, int>> {
 protected:
  const Case case_ = std::get<0>(GetParam());
  const int32_t q_heads_ = case_.kv_heads * case_.ratio;
  std::unique_ptr<Ops> ops_ = MakeCpuOps(std::get<1>(GetParam()));
  std::unique_ptr<Ops> reference_ = MakeReferenceOps();
  Random random_{static_cast<uint32_t>(case_.head_dim * 131 + case_.ratio)};
};

TEST_P(AttentionTest, Attention) {
  const std::vector<TestSequence> batches[] = {
      {{0, 1}}, {{0, 37}, {255, 1}, {256, 2}, {19, 9}}, {{2300, 3}, {0, 11}}, {{4200, 1}}};
  for (const auto& sequences : batches) {
    TestStep step(random_, sequences, case_.kv_heads, case_.head_dim, case_.kv, 3);
    const int32_t rows = step.rows().rows;
    const int64_t count = int64_t{rows} * q_heads_ * case_.head_dim;
    const std::vector<float> q = RandomVector(random_, count);
    const std::vector<float> sinks = RandomVector(random_, q_heads_);
    std::vector<float> actual(count), expected(count);
    AttentionArgs args;
    args.rows = step.rows();
    args.q = q.data();
    args.q_heads = q_heads_;
    args.kv_heads = case_.kv_heads;
    args.head_dim = case_.head_dim;
    args.scale = 1.0f / std::sqrt(static_cast<float>(case_.head_dim));
    args.window = case_.window;
    args.sinks = case_.sinks ? sinks.data() : nullptr;
    args.kv = step.kv();
    TestScratch scratch(*ops_, step.shape());
    args.out = actual.data();
    ASSERT_TRUE(ops_->Attention(args, scratch, nullptr).ok());
    args.out = expected.data();
    ASSERT_TRUE(reference_->Attention(args, {}, nullptr).ok());
    ExpectClose(expected, actual, 5e-6, "attention");
  }
}

TEST_P(AttentionTest, AttentionInput) {
  const int64_t hidden = 75;
  const int32_t dim = case_.head_dim;
  TestStep step(random_, {{0, 37}, {255, 1}, {19, 9}}, case_.kv_heads, dim, case_.kv, 2);
  TestStep same = step;
  const int32_t rows = step.rows().rows;
  const int64_t width = int64_t{q_heads_ + 2 * case_.kv_heads} * dim;
  const TestMatrix w = RandomMatrix(random_, DType::kBF16, width, hidden);
  const std::vector<float> x = RandomVector(random_, rows * hidden);
  const std::vector<float> norm = RandomVector(random_, hidden);
  const std::vector<float> bias = RandomVector(random_, width);
  const std::vector<float> q_norm = RandomVector(random_, dim), k_norm = RandomVector(random_, dim);
  for (const bool all : {false, true}) {
    std::vector<float> inv_freq;
    const int32_t rotated = all ? dim : dim / 2 / 2 * 2;  // glm rotates half of a head
    for (int i = 0; i < rotated / 2; ++i) inv_freq.push_back(std::pow(1e4f, -2.0f * i / rotated));
    std::vector<float> actual(rows * q_heads_ * dim), expected(rows * q_heads_ * dim);
    AttentionInputArgs args;
    args.rows = step.rows();
    args.x = x.data();
    args.norm = norm.data();
    args.eps = 1e-6f;
    args.qkv = w.matrix;
    args.bias = all ? bias.data() : nullptr;
    args.q_norm = all ? q_norm.data() : nullptr;
    args.k_norm = all ? k_norm.data() : nullptr;
    args.q_heads = q_heads_;
    args.kv_heads = case_.kv_heads;
    args.head_dim = dim;
    args.rope = {inv_freq.data(), rotated, all ? 1.25f : 1.0f};
    ScratchShape shape = step.shape();
    shape.hidden = static_cast<int32_t>(hidden);
    shape.q_heads = q_heads_;
    TestScratch scratch(*ops_, shape);
    args.kv = step.kv();
    args.q = actual.data();
    ASSERT_TRUE(ops_->AttentionInput(args, scratch, nullptr).ok());
    args.kv = same.kv();
    args.rows = same.rows();
    args.q = expected.data();
    ASSERT_TRUE(reference_->AttentionInput(args, {}, nullptr).ok());
    ExpectClose(expected, actual, 4 * DotTolerance(hidden) + 2e-5, "q");
    std::vector<float> kv, same_kv;
    for (size_t i = 0; i < step.pool().size() / DTypeBytes(case_.kv, 1); ++i) {
      kv.push_back(ReferenceFloat(step.pool().data(), case_.kv, i));
      same_kv.push_back(ReferenceFloat(same.pool().data(), case_.kv, i));
    }
    // A bf16 may round the other way: half a unit of the largest values.
    ExpectClose(same_kv, kv, case_.kv == DType::kF32 ? 1e-4 : 0.3, "the pool");
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, AttentionTest,
                         ::testing::Combine(::testing::ValuesIn(kCases), ::testing::Values(1, 3)));

}  // namespace
}  // namespace switchyard::kernels
