// Every op that reads weights, with quantized ones, against the reference, which dequantizes each
// weight by the definition in ops.h.

#include <gtest/gtest.h>

#include "tests/kernels/test_data.h"
#include "tests/reference/reference_ops.h"

namespace switchyard::kernels {
namespace {

struct Case {
  QuantizedForm form;
  int64_t n, k;
};
// Rows that end within a block of 128, within a panel of 1024 columns, and groups across panels.
const Case kCases[] = {
    {{DType::kF8E4M3, 0}, 1, 1},         {{DType::kF8E4M3, 0}, 7, 45},
    {{DType::kF8E4M3, 0}, 130, 1101},    {{DType::kF8E4M3, 128}, 5, 128},
    {{DType::kF8E4M3, 128}, 131, 200},   {{DType::kF8E4M3, 128}, 257, 1187},
    {{DType::kInt4, 32}, 3, 32},         {{DType::kInt4, 64, true}, 66, 192},
    {{DType::kInt4, 128}, 70, 1152},     {{DType::kInt4, 128, true}, 9, 2176},
    {{DType::kInt4, 96, true}, 6, 1248}, {{DType::kInt4, 2080}, 10, 2080},
    {{DType::kMxfp4, 32}, 5, 32},        {{DType::kMxfp4, 32}, 67, 1120},
    {{DType::kMxfp4, 32}, 64, 2880},
};

class QuantizedTest : public ::testing::TestWithParam<std::tuple<Case, int>> {
 protected:
  const Case case_ = std::get<0>(GetParam());
  const int64_t n_ = case_.n, k_ = case_.k;
  std::unique_ptr<Ops> ops_ = MakeCpuOps(std::get<1>(GetParam()));
  std::unique_ptr<Ops> reference_ = MakeReferenceOps();
  Random random_{static_cast<uint32_t>(n_ * 31 + k_)};
};

TEST_P(QuantizedTest, Linear) {
  const TestMatrix w = RandomMatrix(random_, case_.form, n_, k_);
  for (const int32_t rows : {1, 3, 8, 20, 21, 70}) {
    const std::vector<float> x = RandomVector(random_, rows * k_);
    const std::vector<float> bias = RandomVector(random_, n_);
    ScratchShape need;
    need.rows = rows;
    need.hidden = static_cast<int32_t>(k_);
    TestScratch scratch(*ops_, need);
    std::vector<float> actual = RandomVector(random_, rows * n_), expected = actual;
    LinearArgs args = {rows, x.data(), w.matrix, bias.data(), rows % 2 == 0};
    args.out = actual.data();
    ASSERT_TRUE(ops_->Linear(args, scratch, nullptr).ok());
    args.out = expected.data();
    ASSERT_TRUE(reference_->Linear(args, {}, nullptr).ok());
    ExpectClose(expected, actual, DotTolerance(k_), "linear");
  }
}

// One product of gate and up rows, and the head: matrices whose rows are read in other orders.
TEST_P(QuantizedTest, MlpInputAndHead) {
  const TestMatrix w = RandomMatrix(random_, case_.form, 2 * n_, k_);
  const std::vector<float> norm = RandomVector(random_, k_);
  for (const int32_t rows : {1, 23}) {
    const std::vector<float> x = RandomVector(random_, rows * k_);
    const std::vector<int32_t> row = {rows - 1};
    ScratchShape need;
    need.rows = rows;
    need.hidden = static_cast<int32_t>(k_);
    need.intermediate = static_cast<int32_t>(n_);
    need.logit_rows = 1;
    TestScratch scratch(*ops_, need);
    std::vector<float> actual(rows * n_), expected(rows * n_);
    MlpInputArgs mlp = {rows, x.data(), norm.data(), 1e-5f, w.matrix};
    mlp.out = actual.data();
    ASSERT_TRUE(ops_->MlpInput(mlp, scratch, nullptr).ok());
    mlp.out = expected.data();
    ASSERT_TRUE(reference_->MlpInput(mlp, {}, nullptr).ok());
    const double spread = std::sqrt(static_cast<double>(k_)) + 1;
    ExpectClose(expected, actual, 10 * DotTolerance(k_) * spread + 1e-6 * 20 * spread * spread,
                "mlp input");
    actual.assign(2 * n_, 0);
    expected = actual;
    HeadArgs head = {1, row.data(), x.data(), norm.data(), 1e-6f, w.matrix, 0.0f};
    head.logits = actual.data();
    ASSERT_TRUE(ops_->Head(head, scratch, nullptr).ok());
    head.logits = expected.data();
    ASSERT_TRUE(reference_->Head(head, {}, nullptr).ok());
    ExpectClose(expected, actual, 4 * DotTolerance(k_), "head");
  }
}

// A row of the table is the dequantized weights themselves: the rounding of one multiplication.
TEST_P(QuantizedTest, EmbedIsExact) {
  TestStep step(random_, {{3, 5}, {0, 1}}, 1, 16);
  const TestMatrix table = RandomMatrix(random_, case_.form, 50, k_);
  std::vector<float> actual(6 * k_), expected(6 * k_);
  EmbedArgs args = {step.rows(), step.tokens(), table.matrix, 1.0f, actual.data()};
  ASSERT_TRUE(ops_->Embed(args, {}, nullptr).ok());
  args.out = expected.data();
  ASSERT_TRUE(reference_->Embed(args, {}, nullptr).ok());
  EXPECT_EQ(expected, actual);  // doubles of few bits, rounded to float32 once, as the product is
}

TEST_P(QuantizedTest, Experts) {
  constexpr int32_t kExperts = 5, kChosen = 2, kHidden = 160;
  // The intermediate size is the k of `down`, the hidden size that of `gate_up`.
  const int32_t inner =
      case_.form.group > 128 ? 160 : static_cast<int32_t>(std::min(k_, int64_t{300}) / 96 + 1) * 96;
  QuantizedForm form = case_.form;
  if (form.dtype == DType::kInt4) form.group = 32;
  const TestMatrix gate_up = RandomMatrix(random_, form, 2 * inner, kHidden, kExperts, 0.1f);
  const TestMatrix down = RandomMatrix(random_, form, kHidden, inner, kExperts, 0.1f);
  for (const int32_t rows : {1, 30}) {
    const std::vector<float> x = RandomVector(random_, rows * kHidden);
    std::vector<int32_t> ids;
    std::vector<float> weights;
    for (int32_t i = 0; i < rows * kChosen; ++i) {
      ids.push_back(static_cast<int32_t>(random_() % kExperts));
      weights.push_back(0.5f);
    }
    ScratchShape need;
    need.rows = rows;
    need.hidden = kHidden;
    need.experts = kExperts;
    need.chosen = kChosen;
    need.expert_intermediate = inner;
    TestScratch scratch(*ops_, need);
    std::vector<float> actual(rows * kHidden), expected(rows * kHidden);
    MoeExpertsArgs args;
    args.rows = rows;
    args.x = x.data();
    args.ids = ids.data();
    args.weights = weights.data();
    args.chosen = kChosen;
    args.gate_up = gate_up.matrix;
    args.down = down.matrix;
    args.out = actual.data();
    ASSERT_TRUE(ops_->MoeExperts(args, scratch, nullptr).ok());
    args.out = expected.data();
    ASSERT_TRUE(reference_->MoeExperts(args, {}, nullptr).ok());
    ExpectClose(expected, actual, 100 * DotTolerance(inner, 1, 0.1), "experts");
  }
}

// A row has the same bits alone, in any company, and whichever thread computes it.
TEST_P(QuantizedTest, NoBitDependsOnTheBatch) {
  const TestMatrix w = RandomMatrix(random_, case_.form, n_, k_);
  constexpr int32_t kRows = 300;
  const std::vector<float> x = RandomVector(random_, kRows * k_);
  ScratchShape need;
  need.rows = kRows;
  need.hidden = static_cast<int32_t>(k_);
  const auto run = [&](Ops& ops, int32_t first, int32_t rows) {
    TestScratch scratch(ops, need);
    std::vector<float> out(rows * n_);
    LinearArgs args = {rows, x.data() + first * k_, w.matrix};
    args.out = out.data();
    EXPECT_TRUE(ops.Linear(args, scratch, nullptr).ok());
    return out;
  };
  const std::vector<float> all = run(*ops_, 0, kRows);
  const std::unique_ptr<Ops> other = MakeCpuOps(4);
  EXPECT_EQ(all, run(*other, 0, kRows));
  for (const int32_t rows : {1, 5, 20, 21}) {
    const int32_t first = kRows - rows;
    const std::vector<float> part = run(*ops_, first, rows);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + first * n_)) << rows << " rows";
  }
}

INSTANTIATE_TEST_SUITE_P(Forms, QuantizedTest,
                         ::testing::Combine(::testing::ValuesIn(kCases), ::testing::Values(1, 3)));

}  // namespace
}  // namespace switchyard::kernels
