// Embed, Linear, PostNormAdd, MlpInput and Head on the GPU against the reference: every variant of
// the product (one row, few, many, odd widths) and every type.

#include "tests/gpu/device_data.h"

namespace switchyard::kernels {
namespace {

struct Shape {
  int32_t rows;
  int64_t n, k;
};
const Shape kShapes[] = {
    {1, 1, 1},       {1, 5, 8},        {1, 130, 96},     {1, 33, 2056},    {1, 70, 4096},
    {1, 24, 14336},  {2, 7, 17},       {2, 70, 40},      {5, 130, 1032},   {8, 33, 2880},
    {9, 64, 256},    {16, 100, 4096},  {17, 31, 80},     {32, 130, 512},   {33, 130, 48},
    {40, 66, 1040},  {129, 9, 2600},   {270, 200, 1029}, {1100, 72, 136},  {9, 300, 2048},
    {20, 72, 2056},  {64, 200, 4096},  {65, 41, 1030},   {100, 130, 1032}, {128, 2880, 264},
    {129, 136, 256}, {300, 264, 1032}, {2100, 64, 72},   {2, 34, 14336},   {3, 130, 4096},
    {4, 40, 28672},  {4, 6000, 168},   {6, 130, 4104},   {7, 40, 8192},    {8, 6000, 264}};

class GpuDenseTest : public GpuTest,
                     public ::testing::WithParamInterface<std::tuple<Shape, DType>> {
 protected:
  const Shape shape_ = std::get<0>(GetParam());
  const DType dtype_ = std::get<1>(GetParam());
  Random random_{static_cast<uint32_t>(shape_.rows * 7919 + shape_.n * 31 + shape_.k)};
  const float spread_ = 1 / std::sqrt(static_cast<float>(shape_.k));  // dots have spread 1

  void CheckLinear();
  void CheckMlpInput();

  // Whether gate and up of these rows may come from cuBLASLt.
  bool HandsOn() const {
    return shape_.rows > 64 && shape_.n % 8 == 0 && shape_.k % 8 == 0 && dtype_ == DType::kBF16 &&
           *ops_->matrix_library() != 0;
  }

  ScratchShape Need(int32_t logit_rows = 0) {
    ScratchShape need;
    need.rows = shape_.rows;
    need.hidden = static_cast<int32_t>(shape_.k);
    need.intermediate = static_cast<int32_t>(shape_.n);
    need.logit_rows = logit_rows;
    return need;
  }
};

// How far a result may be off where gate and up were handed on as bf16: both have moved by up to a
// rounding either way, and what the activation makes of them is rounded too.
double ReachOfRounded(Activation activation, double gate, double up) {
  const double exact = ReferenceActivation(activation, gate, up);
  double reach = 0;
  for (const double g : {1 - kBf16Epsilon, 1 + kBf16Epsilon}) {
    for (const double u : {1 - kBf16Epsilon, 1 + kBf16Epsilon}) {
      const double moved = ReferenceActivation(activation, gate * g, up * u);
      reach = std::max(reach, std::fabs(moved - exact));
    }
  }
  return reach + kBf16Epsilon * (std::fabs(exact) + reach);
}

TEST_P(GpuDenseTest, Linear) { CheckLinear(); }
TEST_P(GpuDenseTest, MlpInput) { CheckMlpInput(); }

void GpuDenseTest::CheckLinear() {
  const auto [rows, n, k] = shape_;
  const TestMatrix w = RandomMatrix(random_, dtype_, n, k, 1, spread_), plain_w = Dequantized(w);
  DeviceMatrix device_w(w);
  const std::vector<float> x = RandomBf16(random_, rows * k), bias = RandomVector(random_, n);
  DeviceBf16 device_x(x);
  DeviceArray<float> device_bias(bias);
  DeviceScratch scratch(*ops_, Need());
  for (const bool accumulate : {false, true}) {
    std::vector<float> expected = RandomBf16(random_, rows * n);
    DeviceBf16 out(expected);
    LinearArgs args = {rows, x.data(), plain_w.matrix, accumulate ? bias.data() : nullptr,
                       accumulate};
    args.out = expected.data();
    ASSERT_TRUE(reference_->Linear(args, {}, nullptr).ok());
    args = {rows,       device_x.data(), device_w.matrix, accumulate ? device_bias.data() : nullptr,
            accumulate, out.data()};
    ASSERT_STREQ(ops_->Linear(args, scratch, nullptr).message, nullptr);
    ExpectNear(expected, out.GetFloats(), 1e-4, kBf16Epsilon, "linear");
  }
}

void GpuDenseTest::CheckMlpInput() {
  const auto [rows, n, k] = shape_;
  const TestMatrix w = RandomMatrix(random_, dtype_, 2 * n, k, 1, spread_),
                   plain_w = Dequantized(w);
  DeviceMatrix device_w(w);
  const std::vector<float> x = RandomBf16(random_, rows * k), norm = RandomVector(random_, k);
  const std::vector<float> bias = RandomVector(random_, 2 * n);
  DeviceBf16 device_x(x);
  DeviceArray<float> device_norm(norm), device_bias(bias);
  DeviceScratch scratch(*ops_, Need());
  std::vector<float> gate_up(rows * 2 * n);
  LinearArgs both = {rows, x.data(), plain_w.matrix};
  both.out = gate_up.data();
  if (HandsOn()) {
    ASSERT_TRUE(reference_->Linear(both, {}, nullptr).ok());
  }
  for (const auto activation :
       {Activation::kSilu, Activation::kGeluTanh, Activation::kSwigluClamped}) {
    for (const bool plain : {false, true}) {
      std::vector<float> expected(rows * n);
      DeviceBf16 out(rows * n);
      MlpInputArgs args = {rows, x.data(), plain ? nullptr : norm.data(), 1e-5f, plain_w.matrix};
      args.bias = plain ? nullptr : bias.data();
      args.activation = activation;
      args.out = expected.data();
      ASSERT_TRUE(reference_->MlpInput(args, {}, nullptr).ok());
      args.x = device_x.data();
      args.gate_up = device_w.matrix;
      args.norm = plain ? nullptr : device_norm.data();
      args.bias = plain ? nullptr : device_bias.data();
      args.out = out.data();
      ASSERT_STREQ(ops_->MlpInput(args, scratch, nullptr).message, nullptr);
      // Sums in float may be off by 1e-4, and the other factor is below 8.
      constexpr double kExact = 1e-3;
      const std::vector<float> actual = out.GetFloats();
      if (!plain || !HandsOn()) {
        ExpectNear(expected, actual, plain ? kExact : 8 * kDotOfRounded, 2 * kBf16Epsilon,
                   "mlp input");
        continue;
      }
      for (int64_t i = 0; i < rows * n; ++i) {
        const float* gate = gate_up.data() + i / n * 2 * n + i % n;
        ASSERT_LE(std::fabs(expected[i] - actual[i]),
                  kExact + ReachOfRounded(activation, gate[0], gate[n]))
            << "mlp input: element " << i << " is " << actual[i] << ", not " << expected[i];
      }
    }
  }
}

TEST_P(GpuDenseTest, HeadOfSomeRows) {
  const auto [rows, n, k] = shape_;
  const TestMatrix w = RandomMatrix(random_, dtype_, n, k, 1, spread_), plain_w = Dequantized(w);
  DeviceMatrix device_w(w);
  const std::vector<float> x = RandomBf16(random_, rows * k), norm = RandomVector(random_, k);
  DeviceBf16 device_x(x);
  DeviceArray<float> device_norm(norm);
  std::vector<int32_t> row;
  for (int32_t r = rows - 1; r >= 0; r -= 2) row.push_back(r);
  const int32_t count = static_cast<int32_t>(row.size());
  DeviceArray<int32_t> device_row(row);
  DeviceScratch scratch(*ops_, Need(count));
  for (const float softcap : {0.0f, 30.0f}) {
    std::vector<float> expected(count * n);
    DeviceArray<float> out(count * n);
    HeadArgs args = {count, row.data(), x.data(), norm.data(), 1e-6f, plain_w.matrix, softcap};
    args.logits = expected.data();
    ASSERT_TRUE(reference_->Head(args, {}, nullptr).ok());
    args = {count, device_row.data(), device_x.data(), device_norm.data(),
            1e-6f, device_w.matrix,   softcap,         out.data()};
    ASSERT_STREQ(ops_->Head(args, scratch, nullptr).message, nullptr);
    ExpectNear(expected, out.Get(), kDotOfRounded, kBf16Epsilon, "head");
  }
}

TEST_P(GpuDenseTest, PostNormAdd) {
  const auto [rows, n, k] = shape_;
  const std::vector<float> x = RandomBf16(random_, rows * k), norm = RandomVector(random_, k);
  std::vector<float> expected = RandomBf16(random_, rows * k);
  DeviceBf16 device_x(x), residual(expected);
  DeviceArray<float> device_norm(norm);
  PostNormAddArgs args = {rows, static_cast<int32_t>(k), x.data(), norm.data(), 1e-6f};
  args.residual = expected.data();
  ASSERT_TRUE(reference_->PostNormAdd(args, {}, nullptr).ok());
  args = {rows,  static_cast<int32_t>(k), device_x.data(), device_norm.data(),
          1e-6f, residual.data()};
  ASSERT_STREQ(ops_->PostNormAdd(args, {}, nullptr).message, nullptr);
  ExpectNear(expected, residual.GetFloats(), 1e-5, kBf16Epsilon, "post norm");
}

TEST_P(GpuDenseTest, TheSameBitsTwice) {
  const auto [rows, n, k] = shape_;
  const TestMatrix w = RandomMatrix(random_, dtype_, n, k, 1, spread_);
  DeviceMatrix device_w(w);
  DeviceBf16 x(RandomBf16(random_, rows * k)), first(rows * n), second(rows * n);
  DeviceScratch scratch(*ops_, Need());
  LinearArgs args = {rows, x.data(), device_w.matrix, nullptr, false, first.data()};
  ASSERT_STREQ(ops_->Linear(args, scratch, nullptr).message, nullptr);
  args.out = second.data();
  ASSERT_STREQ(ops_->Linear(args, scratch, nullptr).message, nullptr);
  EXPECT_EQ(first.Get(), second.Get());
}

INSTANTIATE_TEST_SUITE_P(Shapes, GpuDenseTest,
                         ::testing::Combine(::testing::ValuesIn(kShapes),
                                            ::testing::Values(DType::kBF16, DType::kF32,
                                                              DType::kF16)));

// The kernels that stand in where there is no cuBLASLt, over the same shapes.
class GpuWithoutCublasTest : public GpuDenseTest {
 protected:
  void SetUp() override {
    GpuDenseTest::SetUp();
    if (!IsSkipped()) LeaveCublasOut();
  }
};
TEST_P(GpuWithoutCublasTest, Linear) { CheckLinear(); }
TEST_P(GpuWithoutCublasTest, MlpInput) { CheckMlpInput(); }
INSTANTIATE_TEST_SUITE_P(Shapes, GpuWithoutCublasTest,
                         ::testing::Combine(::testing::ValuesIn(kShapes),
                                            ::testing::Values(DType::kBF16)));

// The kernels whose rows do not depend on their number.
class GpuInvariantDenseTest : public GpuDenseTest {
 protected:
  void SetUp() override {
    GpuDenseTest::SetUp();
    if (!IsSkipped()) MakeInvariant();
  }
};
TEST_P(GpuInvariantDenseTest, Linear) { CheckLinear(); }
TEST_P(GpuInvariantDenseTest, MlpInput) { CheckMlpInput(); }
INSTANTIATE_TEST_SUITE_P(Shapes, GpuInvariantDenseTest,
                         ::testing::Combine(::testing::ValuesIn(kShapes),
                                            ::testing::Values(DType::kBF16)));

// Or damaged weights would not be seen in the logits.
using GpuNotNumbersTest = GpuTest;
TEST_F(GpuNotNumbersTest, StayWhatTheyAre) {
  constexpr int32_t kWidth = 40, kHidden = 72, kBad = 21;
  Random random(3);
  DeviceMatrix w(RandomMatrix(random, DType::kBF16, 2 * kWidth, kHidden));
  for (const int32_t rows : {1, 3, 12, 100}) {
    ScratchShape need;
    need.rows = rows;
    need.hidden = kHidden;
    need.intermediate = kWidth;
    DeviceScratch scratch(*ops_, need);
    DeviceBf16 x(RandomBf16(random, rows * kHidden)), out(rows * kWidth);
    for (const auto activation :
         {Activation::kSilu, Activation::kGeluTanh, Activation::kSwigluClamped}) {
      for (const int32_t at : {kBad, kWidth + kBad}) {  // of the gate, of what it lets through
        std::vector<float> bias(2 * kWidth);
        bias[at] = NAN;
        DeviceArray<float> device_bias(bias);
        MlpInputArgs args = {rows, x.data(), nullptr, 0, w.matrix};
        args.bias = device_bias.data();
        args.activation = activation;
        args.out = out.data();
        ASSERT_STREQ(ops_->MlpInput(args, scratch, nullptr).message, nullptr);
        const std::vector<float> actual = out.GetFloats();
        for (int32_t i = 0; i < rows * kWidth; ++i) {
          EXPECT_EQ(std::isnan(actual[i]), i % kWidth == kBad) << i << " of " << rows << " rows";
        }
      }
    }
  }
}

using GpuEmbedTest = GpuTest;
TEST_F(GpuEmbedTest, ReadsTheTable) {
  Random random(1);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    TestStep step(random, {{3, 5}, {0, 1}, {9, 1}}, 1, 16, DType::kBF16, 2);
    DeviceStep device_step(step, 3);
    const TestMatrix table = RandomMatrix(random, dtype, 50, 37);
    DeviceMatrix device_table(table);
    std::vector<float> expected(9 * 37);  // padding: zeros
    DeviceBf16 out(9 * 37);
    EmbedArgs args = {step.rows(), step.tokens(), table.matrix, 6.5f, expected.data()};
    ASSERT_TRUE(reference_->Embed(args, {}, nullptr).ok());
    args = {device_step.rows, device_step.tokens, device_table.matrix, 6.5f, out.data()};
    ASSERT_STREQ(ops_->Embed(args, {}, nullptr).message, nullptr);
    ExpectNear(expected, out.GetFloats(), 1e-6, kBf16Epsilon, "embed");
  }
}

}  // namespace
}  // namespace switchyard::kernels
