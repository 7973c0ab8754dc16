#pragma once

// Device memory for tests: vectors go up and come down again, floats as bf16 where asked.

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "kernels/ops.h"
#include "tests/gpu/test_options.h"
#include "tests/kernels/test_data.h"
#include "tests/reference/reference_ops.h"

namespace switchyard::kernels {

// With SWITCHYARD_TEST_INITCHECK set, for compute-sanitizer's initcheck, fresh memory is not
// filled, which would hide what nobody has written, and cuBLASLt is left out, whose bulk stores
// initcheck does not see.
bool ForInitcheck();

// Fresh memory is NaN: what an op reads before it writes shows.
template <class T>
class DeviceArray {
 public:
  // Whole pieces of 16 bytes, which kernels may read to their end.
  explicit DeviceArray(size_t count) : count_(count) {
    const size_t bytes = (std::max<size_t>(count * sizeof(T), 1) + 15) / 16 * 16;
    EXPECT_EQ(cudaMalloc(&data_, bytes), cudaSuccess);
    if (ForInitcheck()) return;
    EXPECT_EQ(cudaMemset(data_, 0xFF, count * sizeof(T)), cudaSuccess);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) { Put(values); }
  DeviceArray(const T* values, size_t count)
      : DeviceArray(std::vector<T>(values, values + count)) {}
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  void Put(const std::vector<T>& values) {
    EXPECT_EQ(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice),
              cudaSuccess);
  }
  std::vector<T> Get() const {
    std::vector<T> values(count_);
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    EXPECT_EQ(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost),
              cudaSuccess);
    return values;
  }
  T* data() { return data_; }

 private:
  T* data_ = nullptr;
  size_t count_;
};

inline uint16_t ToBf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
inline float FromBf16(uint16_t x) {
  const uint32_t bits = uint32_t{x} << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
// Random numbers that bf16 holds, so that both sides see the same input.
inline std::vector<float> RandomBf16(Random& random, int64_t count, float spread = 1.0f) {
  std::vector<float> values = RandomVector(random, count, spread);
  for (float& x : values) x = FromBf16(ToBf16(x));
  return values;
}

// Floats as bf16 on the device.
class DeviceBf16 : public DeviceArray<uint16_t> {
 public:
  explicit DeviceBf16(size_t count) : DeviceArray(count) {}
  explicit DeviceBf16(const std::vector<float>& values) : DeviceArray(Narrow(values)) {}
  std::vector<float> GetFloats() const {
    std::vector<float> values;
    for (uint16_t x : Get()) values.push_back(FromBf16(x));
    return values;
  }

 private:
  static std::vector<uint16_t> Narrow(const std::vector<float>& values) {
    std::vector<uint16_t> narrow;
    for (float x : values) narrow.push_back(ToBf16(x));
    return narrow;
  }
};

// Scales and zeros end in whole words, as in an image, where what follows starts at a multiple of
// 256 bytes: kernels read words of them.
struct DeviceMatrix {
  explicit DeviceMatrix(const TestMatrix& m);
  DeviceArray<uint8_t> bytes, scales, zeros;
  Matrix matrix;
};

// A TestStep's rows, tables and pool on the device.
struct DeviceStep {
  DeviceStep(TestStep& step, int32_t slots);
  StepRows rows;
  KvView kv;
  TokenTable tokens;
  DeviceArray<int32_t> slot, position, sequence_slot, sequence_row, sequence_length, table, ids;
  DeviceArray<uint8_t> pool;
};

class DeviceScratch {
 public:
  DeviceScratch(const Ops& ops, const ScratchShape& shape)
      : size_(ops.ScratchBytes(shape)), bytes_(size_) {}
  operator Scratch() { return {bytes_.data(), size_}; }

 private:
  int64_t size_;
  DeviceArray<uint8_t> bytes_;
};

// The GPU's ops; a test is skipped, and says so, where there is no GPU.
class GpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    OpError error;
    if (MakeCudaOps({}, &error) == nullptr) {
      GTEST_SKIP() << "no GPU to test on: " << error.message;
    }
    CudaOptions options = TestOptions();
    options.cublas = !ForInitcheck();
    ops_ = MakeCudaOps(options, &error);
    ASSERT_NE(ops_, nullptr) << error.message;
  }
  void LeaveCublasOut() {
    CudaOptions options = TestOptions();
    options.cublas = false;
    ops_ = MakeCudaOps(options, nullptr);
    ASSERT_STREQ(ops_->matrix_library(), "");
  }
  void MakeInvariant() {
    CudaOptions options = TestOptions();
    options.batch_invariant = true;
    ops_ = MakeCudaOps(options, nullptr);
    ASSERT_STREQ(ops_->matrix_library(), "");
  }
  std::unique_ptr<Ops> ops_;
  std::unique_ptr<Ops> reference_ = MakeReferenceOps();
};

// Every |expected - actual| at most absolute + relative * |expected|; the message names the worst.
void ExpectNear(const std::vector<float>& expected, const std::vector<float>& actual,
                double absolute, double relative, const char* what);

// bf16 keeps eight bits: a result is off by at most this, relative to itself.
inline constexpr double kBf16Epsilon = 0x1p-8;
// What bf16 inputs cost a dot product whose terms have a sum of standard deviation 1 and of which
// one factor was rounded: eight standard deviations, of 0.43 kBf16Epsilon each.
inline constexpr double kDotOfRounded = 12 * kBf16Epsilon / 2 / 1.7;

}  // namespace switchyard::kernels
