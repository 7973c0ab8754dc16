#pragma once

// Random quantized matrices and, read off their bytes by the letter of ops.h, the same weights as
// float32: what the oracles multiply.

#include "tests/gpu/device_data.h"

namespace switchyard::kernels {

struct QuantCase {
  const char* name;
  DType dtype;
  int32_t group = 0;
  bool zeros = false;
};
inline constexpr QuantCase kQuantCases[] = {
    {"fp8_rows", DType::kF8E4M3, 0},       {"fp8_blocks", DType::kF8E4M3, 128},
    {"int4_32", DType::kInt4, 32, true},   {"int4_64", DType::kInt4, 64, false},
    {"int4_96", DType::kInt4, 96, true},   {"int4_128", DType::kInt4, 128, true},
    {"int4_256", DType::kInt4, 256, true}, {"mxfp4", DType::kMxfp4, 32},
};
inline void PrintTo(const QuantCase& c, std::ostream* out) { *out << c.name; }

// The next width at or above `k` that the format can have.
int64_t QuantWidth(const QuantCase& c, int64_t k);

class QuantMatrix {
 public:
  // Dequantized weights have a standard deviation of about `spread`.
  QuantMatrix(Random& random, const QuantCase& c, int64_t n, int64_t k, int64_t batch,
              float spread);
  // On the device.
  const Matrix& quantized() const { return quantized_; }
  // f32, on the host.
  const Matrix& plain() const { return plain_; }

 private:
  double Weight(const QuantCase& c, int64_t batch, int64_t row, int64_t column) const;

  std::vector<uint8_t> data_, scales_, zeros_;
  std::vector<float> weights_;
  std::unique_ptr<DeviceArray<uint8_t>> device_data_, device_scales_, device_zeros_;
  Matrix quantized_, plain_;
};

}  // namespace switchyard::kernels
