// Rows as wide as real models have them, by the variants of every compute capability, on whatever
// GPU is there: those of 8.0, 8.6, 8.9 and 12.0 within 99 KiB of shared memory where the capability
// has no more, and without overlapping launches before 9.0. All other tests run them, too, if they
// are told to (test_options.h).

#include "tests/gpu/quant_cases.h"

namespace switchyard::kernels {
namespace {

class GpuPortableTest : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    OpError error;
    if (MakeCudaOps({}, &error) == nullptr) {
      GTEST_SKIP() << "no GPU to test on: " << error.message;
    }
    int device = 0, major = 0;
    ASSERT_EQ(cudaGetDevice(&device), cudaSuccess);
    ASSERT_EQ(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
              cudaSuccess);
    CudaOptions options;
    options.capability = GetParam();
    ops_ = MakeCudaOps(options, &error);
    if (ops_ == nullptr && 10 * major < GetParam()) {
      GTEST_SKIP() << "not on this GPU: " << error.message;
    }
    ASSERT_NE(ops_, nullptr) << error.message;
  }
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Ops> reference_ = MakeReferenceOps();
  Random random_{5};
};

TEST_P(GpuPortableTest, ProductsOfWideRows) {
  for (const QuantCase& format : kQuantCases) {
    for (const int64_t width : {4096, 14336, 28672}) {
      const int64_t k = QuantWidth(format, width), n = 34;
      const QuantMatrix w(random_, format, n, k, 1, 1 / std::sqrt(static_cast<float>(k)));
      for (const int32_t rows : {1, 3, 16, 20, 40}) {
        const std::vector<float> x = RandomBf16(random_, rows * k);
        DeviceBf16 device_x(x), out(rows * n);
        std::vector<float> expected(rows * n);
        LinearArgs args = {rows, x.data(), w.plain(), nullptr, false, expected.data()};
        ASSERT_TRUE(reference_->Linear(args, {}, nullptr).ok());
        args = {rows, device_x.data(), w.quantized(), nullptr, false, out.data()};
        ASSERT_STREQ(ops_->Linear(args, {}, nullptr).message, nullptr);
        ExpectNear(expected, out.GetFloats(), kDotOfRounded, kBf16Epsilon, format.name);
      }
    }
  }
}

TEST_P(GpuPortableTest, NormedRow) {
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    for (const int64_t k : {4096, 8192, 12288}) {
      const int64_t n = 34;
      const TestMatrix w =
          RandomMatrix(random_, dtype, 2 * n, k, 1, 1 / std::sqrt(static_cast<float>(k)));
      DeviceMatrix device_w(w);
      const std::vector<float> x = RandomBf16(random_, k), norm = RandomVector(random_, k);
      DeviceBf16 device_x(x), out(n);
      DeviceArray<float> device_norm(norm);
      std::vector<float> expected(n);
      MlpInputArgs args = {1, x.data(), norm.data(), 1e-5f, w.matrix};
      args.out = expected.data();
      ASSERT_TRUE(reference_->MlpInput(args, {}, nullptr).ok());
      args = {1, device_x.data(), device_norm.data(), 1e-5f, device_w.matrix};
      args.out = out.data();
      ScratchShape need;
      need.rows = 1;
      need.hidden = static_cast<int32_t>(k);
      DeviceScratch scratch(*ops_, need);
      ASSERT_STREQ(ops_->MlpInput(args, scratch, nullptr).message, nullptr);
      ExpectNear(expected, out.GetFloats(), 8 * kDotOfRounded, 2 * kBf16Epsilon, "mlp input");
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Capabilities, GpuPortableTest, ::testing::Values(80, 86, 89, 90, 120));

TEST(GpuCapabilityTest, BelowTheLowestIsRefused) {
  OpError error;
  if (MakeCudaOps({}, &error) == nullptr) GTEST_SKIP() << "no GPU to test on: " << error.message;
  CudaOptions options;
  options.capability = 75;
  EXPECT_EQ(MakeCudaOps(options, &error), nullptr);
  EXPECT_STREQ(error.message, "GPUs below compute capability 8.0 have no bf16 tensor cores");
}

}  // namespace
}  // namespace switchyard::kernels
