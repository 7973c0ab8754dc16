#pragma once

// Every quantized form that the GPU's kernels tell apart.

#include <ostream>

#include "tests/gpu/device_data.h"

namespace switchyard::kernels {

struct QuantCase {
  const char* name;
  QuantizedForm form;
};
inline constexpr QuantCase kQuantCases[] = {
    {"fp8_rows", {DType::kF8E4M3, 0}},       {"fp8_blocks", {DType::kF8E4M3, 128}},
    {"int4_32", {DType::kInt4, 32, true}},   {"int4_64", {DType::kInt4, 64, false}},
    {"int4_96", {DType::kInt4, 96, true}},   {"int4_128", {DType::kInt4, 128, true}},
    {"int4_256", {DType::kInt4, 256, true}}, {"mxfp4", {DType::kMxfp4, 32}},
};
inline void PrintTo(const QuantCase& c, std::ostream* out) { *out << c.name; }

// The next width at or above `k` that the form can have.
inline int64_t QuantWidth(const QuantCase& c, int64_t k) {
  const int64_t unit = c.form.dtype == DType::kF8E4M3 ? 1 : c.form.group;
  return (k + unit - 1) / unit * unit;
}

// A random matrix of the form on the device, and its weights as f32 on the host.
class QuantMatrix {
 public:
  QuantMatrix(Random& random, const QuantCase& c, int64_t n, int64_t k, int64_t batch, float spread)
      : QuantMatrix(RandomMatrix(random, c.form, n, k, batch, spread)) {}
  const Matrix& quantized() const { return device_.matrix; }
  const Matrix& plain() const { return host_.matrix; }

 private:
  explicit QuantMatrix(const TestMatrix& m) : host_(Dequantized(m)), device_(m) {}
  TestMatrix host_;
  DeviceMatrix device_;
};

}  // namespace switchyard::kernels
