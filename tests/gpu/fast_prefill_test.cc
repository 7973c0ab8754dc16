// Products of fp8 weights and rows that are rounded to fp8, by cuBLASLt.

#include <cmath>

#include "tests/gpu/quant_cases.h"

namespace switchyard::kernels {
namespace {

// fp8 activations: off by up to a sixteenth each, which shows, and no more than that.
class GpuFastPrefillTest : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped()) return;
    if (ForInitcheck()) GTEST_SKIP() << "all of it is cuBLASLt's";
    CudaOptions options = TestOptions();
    options.fast_prefill = true;
    OpError error;
    std::unique_ptr<Ops> fast = MakeCudaOps(options, &error);
    if (fast == nullptr) GTEST_SKIP() << error.message;
    ops_ = std::move(fast);
  }
  // The products of one weight row have a standard deviation of 1, and those of rounded numbers are
  // off by 0.02, at worst by twenty times that: e4m3's patterns spread widely. More than bf16
  // costs.
  static void ExpectFast(const std::vector<float>& expected, const std::vector<float>& actual,
                         bool rounded) {
    ExpectNear(expected, actual, rounded ? 0.4 : 2 * kDotOfRounded, kBf16Epsilon, "fast prefill");
    double off = 0, size = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      off += std::fabs(expected[i] - actual[i]);
      size += std::fabs(expected[i]);
    }
    EXPECT_EQ(off / size > 0.01, rounded) << off / size;
  }
};

TEST_F(GpuFastPrefillTest, RoundsActivationsOfManyRowsOnly) {
  constexpr int64_t kN = 48, kK = 528;
  Random random(31);
  for (const QuantCase& format : {kQuantCases[0], kQuantCases[1], kQuantCases[5]}) {
    const int64_t k = QuantWidth(format, kK);
    const QuantMatrix w(random, format, kN, k, 1, 1 / std::sqrt(static_cast<float>(k)));
    DeviceArray<float> bias(std::vector<float>(kN, 0.25f));
    for (const int32_t rows : {40, 256, 257, 2100}) {
      const bool rounded =
          rows > 256 && format.form.dtype == DType::kF8E4M3 && format.form.group == 0;
      const std::vector<float> x = RandomBf16(random, rows * k);
      DeviceBf16 device_x(x);
      ScratchShape need;
      need.rows = rows;
      need.hidden = static_cast<int32_t>(kN);
      need.intermediate = static_cast<int32_t>(k);
      need.quantized = true;
      DeviceScratch scratch(*ops_, need);
      for (const bool biased : {false, true}) {
        std::vector<float> expected = RandomBf16(random, rows * kN);
        DeviceBf16 out(expected);
        const std::vector<float> host_bias(kN, 0.25f);
        LinearArgs args = {rows, x.data(), w.plain(), biased ? host_bias.data() : nullptr, !biased};
        args.out = expected.data();
        ASSERT_TRUE(reference_->Linear(args, {}, nullptr).ok());
        args.x = device_x.data();
        args.w = w.quantized();
        args.bias = biased ? bias.data() : nullptr;
        args.out = out.data();
        ASSERT_STREQ(ops_->Linear(args, scratch, nullptr).message, nullptr);
        ExpectFast(expected, out.GetFloats(), rounded);
      }
    }
  }
}

TEST_F(GpuFastPrefillTest, RowsOfZerosAndOfLargeNumbers) {
  constexpr int64_t kN = 64, kK = 256;
  constexpr int32_t kRows = 300;
  Random random(32);
  const QuantMatrix w(random, kQuantCases[0], kN, kK, 1, 1.0f / 16);
  std::vector<float> x(kRows * kK);
  for (int64_t i = kK; i < 2 * kK; ++i) x[i] = FromBf16(ToBf16(1e30f));
  DeviceBf16 device_x(x), out(kRows * kN);
  ScratchShape need;
  need.rows = kRows;
  need.hidden = kN;
  need.intermediate = kK;
  need.quantized = true;
  DeviceScratch scratch(*ops_, need);
  LinearArgs args = {kRows, device_x.data(), w.quantized(), nullptr, false, out.data()};
  ASSERT_STREQ(ops_->Linear(args, scratch, nullptr).message, nullptr);
  const std::vector<float> actual = out.GetFloats();
  for (int64_t i = 0; i < kRows * kN; ++i) {
    ASSERT_TRUE(std::isfinite(actual[i])) << i;
    if (i / kN != 1) {
      ASSERT_EQ(actual[i], 0) << i;
    }
  }
}

}  // namespace
}  // namespace switchyard::kernels
