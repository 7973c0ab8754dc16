#include "tests/gpu/quant_data.h"

#include <array>

namespace switchyard::kernels {
namespace {

double DecodeE4m3(uint8_t bits) {
  const int exponent = bits >> 3 & 15, fraction = bits & 7;
  const double size =
      exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
  return bits >> 7 ? -size : size;
}

constexpr std::array<double, 8> kE2m1 = {0, 0.5, 1, 1.5, 2, 3, 4, 6};

// Positive numbers that f16 holds, from 2^-14 up.
uint16_t ToF16(double x) {
  int exponent;
  const double fraction = std::frexp(x, &exponent);
  const int bits = static_cast<int>(std::lround(std::ldexp(fraction, 11)));  // [1024, 2048]
  return static_cast<uint16_t>(((exponent + 13) << 10) + bits);
}

template <class T>
T Element(const std::vector<uint8_t>& bytes, int64_t i) {
  T value;
  std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
  return value;
}
template <class T>
void Append(std::vector<uint8_t>& bytes, T value) {
  bytes.resize(bytes.size() + sizeof(T));
  std::memcpy(bytes.data() + bytes.size() - sizeof(T), &value, sizeof(T));
}

// Arrays lie at multiples of 256 bytes, so that the words they end in are whole.
std::unique_ptr<DeviceArray<uint8_t>> Upload(std::vector<uint8_t> bytes) {
  bytes.resize((bytes.size() + 255) / 256 * 256, 0xFF);
  return std::make_unique<DeviceArray<uint8_t>>(bytes);
}

}  // namespace

int64_t QuantWidth(const QuantCase& c, int64_t k) {
  const int64_t unit = c.dtype == DType::kF8E4M3 ? 1 : c.group;
  return (k + unit - 1) / unit * unit;
}

QuantMatrix::QuantMatrix(Random& random, const QuantCase& c, int64_t n, int64_t k, int64_t batch,
                         float spread) {
  std::uniform_real_distribution<double> factor(0.5, 1.5);
  const bool fp8 = c.dtype == DType::kF8E4M3;
  data_.resize(DTypeBytes(c.dtype, n * k * batch));
  for (uint8_t& byte : data_) {
    do byte = static_cast<uint8_t>(random());
    while (fp8 && ((byte & 0x7f) == 0x7f || (byte & 0x78) > 0x48));  // no NaN, below 8
  }
  const int64_t groups =
      fp8 ? (c.group == 0 ? n : (n + 127) / 128 * ((k + 127) / 128)) : n * (k / c.group);
  for (int64_t i = 0; i < groups * batch; ++i) {
    if (fp8) {
      Append(scales_, static_cast<float>(factor(random) * spread / 2));
    } else if (c.dtype == DType::kInt4) {
      Append(scales_, ToF16(factor(random) * spread / (c.zeros ? 8 : 4.6)));
    } else {
      Append(scales_,
             static_cast<uint8_t>(127 + std::lround(std::log2(spread / 3)) - random() % 3));
    }
    if (c.zeros) Append(zeros_, static_cast<uint8_t>(random() % 17));
  }
  device_data_ = Upload(data_);
  device_scales_ = Upload(scales_);
  quantized_ = {device_data_->data(),   c.dtype, n,      k, batch,
                device_scales_->data(), nullptr, c.group};
  if (c.zeros) {
    device_zeros_ = Upload(zeros_);
    quantized_.zeros = device_zeros_->data();
  }
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t r = 0; r < n; ++r) {
      const Matrix& m = quantized_;
      for (int64_t i = 0; i < m.k; ++i) weights_.push_back(static_cast<float>(Weight(c, b, r, i)));
    }
  }
  plain_ = {weights_.data(), DType::kF32, n, k, batch};
}

double QuantMatrix::Weight(const QuantCase& c, int64_t batch, int64_t row, int64_t column) const {
  const int64_t n = quantized_.n, k = quantized_.k, at = (batch * n + row) * k + column;
  if (c.dtype == DType::kF8E4M3) {
    const int64_t blocks = (k + 127) / 128;
    const int64_t scale = c.group == 0
                              ? batch * n + row
                              : (batch * ((n + 127) / 128) + row / 128) * blocks + column / 128;
    return DecodeE4m3(data_[at]) * Element<float>(scales_, scale);
  }
  // Of eight columns the even ones are the low four nibbles of a word.
  const uint32_t word = Element<uint32_t>(data_, at / 8);
  const int64_t nibble = at % 2 == 0 ? at % 8 / 2 : 4 + at % 8 / 2;
  const uint32_t bits = word >> (4 * nibble) & 15;
  const int64_t scale = (batch * n + row) * (k / c.group) + column / c.group;
  if (c.dtype == DType::kMxfp4) {
    return (bits & 8 ? -1 : 1) * kE2m1[bits & 7] * std::ldexp(1.0, scales_[scale] - 127);
  }
  const int zero = c.zeros ? zeros_[scale] : 8;
  const uint16_t half = Element<uint16_t>(scales_, scale);
  return (static_cast<int>(bits) - zero) * std::ldexp(1024 + (half & 1023), (half >> 10) - 25);
}

}  // namespace switchyard::kernels
