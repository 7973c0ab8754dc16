// Embed, Linear, PostNormAdd, MlpInput and Head against the reference, over odd shapes.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/kernels/test_data.h"
#include "tests/reference/reference_ops.h"

namespace switchyard::kernels {
namespace {

struct Shape {
  int32_t rows;
  int64_t n, k;
};
const Shape kShapes[] = {{1, 1, 1},      {1, 5, 3},     {1, 64, 96},    {1, 33, 2050},
                         {2, 7, 17},     {5, 70, 40},   {6, 12, 64},    {7, 13, 129},
                         {24, 31, 80},   {25, 31, 80},  {26, 64, 1},    {33, 130, 47},
                         {40, 66, 1040}, {90, 9, 2600}, {270, 70, 1029}};
const DType kTypes[] = {DType::kF32, DType::kBF16, DType::kF16};

class DenseTest : public ::testing::TestWithParam<std::tuple<Shape, DType, int>> {
 protected:
  const Shape shape_ = std::get<0>(GetParam());
  const DType dtype_ = std::get<1>(GetParam());
  std::unique_ptr<Ops> ops_ = MakeCpuOps(std::get<2>(GetParam()));
  std::unique_ptr<Ops> reference_ = MakeReferenceOps();
  Random random_{static_cast<uint32_t>(shape_.rows * 7919 + shape_.n * 31 + shape_.k)};

  ScratchShape Need(int32_t intermediate = 0, int32_t logit_rows = 0) {
    ScratchShape need;
    need.rows = shape_.rows;
    need.hidden = static_cast<int32_t>(shape_.k);
    need.intermediate = intermediate;
    need.logit_rows = logit_rows;
    return need;
  }
};

TEST_P(DenseTest, Linear) {
  const auto [rows, n, k] = shape_;
  const TestMatrix w = RandomMatrix(random_, dtype_, n, k);
  const std::vector<float> x = RandomVector(random_, rows * k);
  const std::vector<float> bias = RandomVector(random_, n);
  TestScratch scratch(*ops_, Need());
  for (const bool accumulate : {false, true}) {
    std::vector<float> actual = RandomVector(random_, rows * n), expected = actual;
    LinearArgs args = {rows, x.data(), w.matrix, accumulate ? bias.data() : nullptr, accumulate};
    args.out = actual.data();
    ASSERT_TRUE(ops_->Linear(args, scratch, nullptr).ok());
    args.out = expected.data();
    ASSERT_TRUE(reference_->Linear(args, {}, nullptr).ok());
    ExpectClose(expected, actual, DotTolerance(k), "linear");
  }
}

TEST_P(DenseTest, MlpInput) {
  const auto [rows, n, k] = shape_;
  const TestMatrix w = RandomMatrix(random_, dtype_, 2 * n, k);
  const std::vector<float> x = RandomVector(random_, rows * k);
  const std::vector<float> norm = RandomVector(random_, k), bias = RandomVector(random_, 2 * n);
  TestScratch scratch(*ops_, Need(static_cast<int32_t>(n)));
  for (const auto activation :
       {Activation::kSilu, Activation::kGeluTanh, Activation::kSwigluClamped}) {
    for (const bool plain : {false, true}) {
      std::vector<float> actual(rows * n), expected(rows * n);
      MlpInputArgs args = {rows, x.data(), plain ? nullptr : norm.data(), 1e-5f, w.matrix};
      args.bias = plain ? nullptr : bias.data();
      args.activation = activation;
      args.out = actual.data();
      ASSERT_TRUE(ops_->MlpInput(args, scratch, nullptr).ok());
      args.out = expected.data();
      ASSERT_TRUE(reference_->MlpInput(args, {}, nullptr).ok());
      // gate times up: each has the spread sqrt(k), and the derivative of an activation is
      // below 1.2.
      const double spread = std::sqrt(static_cast<double>(k)) + 1;
      ExpectClose(expected, actual, 10 * DotTolerance(k) * spread + 1e-6 * 20 * spread * spread,
                  "mlp input");
    }
  }
}

TEST_P(DenseTest, HeadOfSomeRows) {
  const auto [rows, n, k] = shape_;
  const TestMatrix w = RandomMatrix(random_, dtype_, n, k);
  const std::vector<float> x = RandomVector(random_, rows * k), norm = RandomVector(random_, k);
  std::vector<int32_t> row;
  for (int32_t r = rows - 1; r >= 0; r -= 2) row.push_back(r);
  const int32_t count = static_cast<int32_t>(row.size());
  TestScratch scratch(*ops_, Need(0, count));
  for (const float softcap : {0.0f, 30.0f}) {
    std::vector<float> actual(count * n), expected(count * n);
    HeadArgs args = {count, row.data(), x.data(), norm.data(), 1e-6f, w.matrix, softcap};
    args.logits = actual.data();
    ASSERT_TRUE(ops_->Head(args, scratch, nullptr).ok());
    args.logits = expected.data();
    ASSERT_TRUE(reference_->Head(args, {}, nullptr).ok());
    ExpectClose(expected, actual, 4 * DotTolerance(k) + 4e-6 * softcap, "head");
  }
}

TEST_P(DenseTest, PostNormAdd) {
  const auto [rows, n, k] = shape_;
  const std::vector<float> x = RandomVector(random_, rows * k), norm = RandomVector(random_, k);
  std::vector<float> actual = RandomVector(random_, rows * k), expected = actual;
  PostNormAddArgs args = {rows, static_cast<int32_t>(k), x.data(), norm.data(), 1e-6f};
  args.residual = actual.data();
  ASSERT_TRUE(ops_->PostNormAdd(args, {}, nullptr).ok());
  args.residual = expected.data();
  ASSERT_TRUE(reference_->PostNormAdd(args, {}, nullptr).ok());
  ExpectClose(expected, actual, 2e-5, "post norm");
}

INSTANTIATE_TEST_SUITE_P(Shapes, DenseTest,
                         ::testing::Combine(::testing::ValuesIn(kShapes),
                                            ::testing::ValuesIn(kTypes), ::testing::Values(1, 3)));

// Or damaged weights would not be seen in the logits.
TEST(NotNumbersTest, StayWhatTheyAre) {
  constexpr int32_t kRows = 3, kWidth = 37, kHidden = 40, kBad = 21;
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const std::unique_ptr<Ops> ops = MakeCpuOps(1);
  Random random{3};
  ScratchShape need;
  need.rows = need.logit_rows = kRows;
  need.hidden = kHidden;
  need.intermediate = kWidth;
  TestScratch scratch(*ops, need);
  const TestMatrix w = RandomMatrix(random, DType::kF32, 2 * kWidth, kHidden);
  const std::vector<float> x = RandomVector(random, kRows * kHidden);
  for (const auto activation :
       {Activation::kSilu, Activation::kGeluTanh, Activation::kSwigluClamped}) {
    for (const int32_t at : {kBad, kWidth + kBad}) {  // of the gate, of what it lets through
      std::vector<float> bias(2 * kWidth), out(kRows * kWidth);
      bias[at] = kNan;
      MlpInputArgs args = {kRows, x.data(), nullptr, 0, w.matrix};
      args.bias = bias.data();
      args.activation = activation;
      args.out = out.data();
      ASSERT_TRUE(ops->MlpInput(args, scratch, nullptr).ok());
      for (int32_t i = 0; i < kRows * kWidth; ++i) {
        EXPECT_EQ(std::isnan(out[i]), i % kWidth == kBad) << i;
      }
    }
  }
  std::vector<float> bad = x, norm(kHidden, 1.0f), logits(kRows * 2 * kWidth);
  bad[kHidden] = kNan;  // in the middle row
  const std::vector<int32_t> row = {0, 1, 2};
  for (const float softcap : {0.0f, 30.0f}) {
    HeadArgs args = {kRows, row.data(), bad.data(), norm.data(), 1e-6f, w.matrix, softcap};
    args.logits = logits.data();
    ASSERT_TRUE(ops->Head(args, scratch, nullptr).ok());
    for (int32_t i = 0; i < kRows * 2 * kWidth; ++i) {
      EXPECT_EQ(std::isnan(logits[i]), i / (2 * kWidth) == 1) << i;
    }
  }
}

TEST(EmbedTest, ReadsTheTableAndLeavesPaddingAlone) {
  Random random(1);
  const std::unique_ptr<Ops> ops = MakeCpuOps(2), reference = MakeReferenceOps();
  for (const DType dtype : kTypes) {
    TestStep step(random, {{3, 5}, {0, 1}, {9, 1}}, 1, 16, DType::kF32, 2);
    const TestMatrix table = RandomMatrix(random, dtype, 50, 37);
    std::vector<float> actual(9 * 37), expected(9 * 37);
    EmbedArgs args = {step.rows(), step.tokens(), table.matrix, 6.5f, actual.data()};
    ASSERT_TRUE(ops->Embed(args, {}, nullptr).ok());
    args.out = expected.data();
    ASSERT_TRUE(reference->Embed(args, {}, nullptr).ok());
    ExpectClose(expected, actual, 3e-6, "embed");
  }
}

TEST(BadArgumentsTest, AreNamed) {
  const std::unique_ptr<Ops> ops = MakeCpuOps(1);
  LinearArgs args;
  args.w = {nullptr, DType::kInt4, 4, 64};
  args.w.group = 48;
  EXPECT_STREQ(ops->Linear(args, {}, nullptr).message,
               "int4 weights have groups of a multiple of 32 that divide a row");
  args.w.group = 32;
  EXPECT_STREQ(ops->Linear(args, {}, nullptr).message, "quantized weights have scales");
  args.w = {nullptr, DType::kF32, 4, 4};
  EXPECT_STREQ(ops->Linear(args, {}, nullptr).message,
               "scratch is smaller than ScratchBytes of this shape");
  EXPECT_STREQ(DTypeName(DType::kMxfp4), "mxfp4");
  EXPECT_EQ(DTypeBytes(DType::kInt4, 6), 3);
}

}  // namespace
}  // namespace switchyard::kernels
