#include "worker/model/quantizer.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "worker/io/packed_weights.h"

namespace switchyard::worker {
namespace {

constexpr float kLargestF8 = 448.0f;
constexpr int64_t kLargestGroup = 128;
constexpr int kInt4Zero = 8;

// To the nearest whole number, ties to even, for |x| < 2^22; two additions that a compiler can do
// on vectors.
float Round(float x) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23
  return (x + kMagic) - kMagic;
}

float Level(float x, float inverse) { return std::min(std::max(Round(x * inverse), -8.0f), 7.0f); }

struct Fit {
  float scale = 0;
  float gain = -1;  // squared error of all zeros, less that of this fit
};

// The best scale for the levels that `inverse` gives.
Fit FitLevels(std::span<const float> w, float inverse) {
  float product = 0, squares = 0;
  for (const float x : w) {
    const float q = Level(x, inverse);
    product += x * q;
    squares += q * q;
  }
  if (squares == 0) return {};
  return {product / squares, product * product / squares};
}

float BestScale(std::span<const float> w) {
  float extreme = 0;
  for (const float x : w) {
    if (std::fabs(x) > std::fabs(extreme)) extreme = x;
  }
  if (extreme == 0) return 0;
  Fit best;
  // The extreme weight at -8 (there is one level more on that side), or somewhat in or out.
  for (int step = -9; step <= 9; ++step) {
    const Fit fit = FitLevels(w, -(8.0f + 0.1f * static_cast<float>(step)) / extreme);
    if (fit.gain > best.gain) best = fit;
  }
  return best.scale;
}

// Not finite if one of them is not.
double SquaredWeights(std::span<const float> w) {
  double sum = 0;
  for (const float x : w) sum += double{x} * x;
  return sum;
}

}  // namespace

double QuantizationError::Relative() const {
  return squared_weights > 0 ? std::sqrt(squared_error / squared_weights) : 0;
}

uint8_t ToF8(float value) {
  const uint32_t sign = std::bit_cast<uint32_t>(value) >> 24 & 0x80u;
  const float size = std::min(std::fabs(value), kLargestF8);
  if (size < 0x1p-6f) {  // a multiple of 2^-9
    return static_cast<uint8_t>(sign | static_cast<uint32_t>(Round(size * 0x1p9f)));
  }
  const uint32_t bits = std::bit_cast<uint32_t>(size);
  const uint32_t rounded = bits + 0x7ffffu + (bits >> 20 & 1u);
  return static_cast<uint8_t>(sign | ((rounded >> 20) - (120u << 3)));
}

float FromF8(uint8_t bits) {
  const uint32_t size = bits & 0x7fu;
  const float value = size < 8 ? static_cast<float>(size) * 0x1p-9f
                               : std::bit_cast<float>((size << 20) + (120u << 23));
  return (bits & 0x80u) != 0 ? -value : value;
}

QuantizationError QuantizeF8(std::span<const float> row, uint8_t* numbers, float* scale) {
  QuantizationError error{.squared_error = 0, .squared_weights = SquaredWeights(row)};
  if (!std::isfinite(error.squared_weights)) return error;
  float largest = 0;
  for (const float x : row) largest = std::max(largest, std::fabs(x));
  *scale = largest > 0 ? largest / kLargestF8 : 1.0f;
  if (*scale < 0x1p-126f) *scale = 0x1p-126f;
  const float inverse = 1.0f / *scale;
  for (size_t i = 0; i < row.size(); ++i) {
    numbers[i] = ToF8(row[i] * inverse);
    const double off = double{row[i]} - double{FromF8(numbers[i])} * *scale;
    error.squared_error += off * off;
  }
  return error;
}

QuantizationError QuantizeInt4(std::span<const float> group, uint32_t* words, uint16_t* scale) {
  QuantizationError error{.squared_error = 0, .squared_weights = SquaredWeights(group)};
  if (!std::isfinite(error.squared_weights)) return error;
  const float wanted = std::clamp(BestScale(group), -65504.0f, 65504.0f);
  *scale = *ToF16(wanted);
  const float rounded = FromF16(*scale);
  const float inverse = rounded != 0 ? 1.0f / rounded : 0.0f;
  for (size_t i = 0; i < group.size(); i += 8) {
    uint32_t word = 0;
    for (size_t j = 0; j < 8; ++j) {
      const float x = group[i + j];
      const float level = Level(x, inverse);
      word |= static_cast<uint32_t>(static_cast<int>(level) + kInt4Zero) << (4 * j);
      const double off = double{x} - double{level} * rounded;
      error.squared_error += off * off;
    }
    words[i / 8] = ToImageOrder(word);
  }
  return error;
}

int32_t Int4Group(int64_t k) {
  for (int64_t group = kLargestGroup; group >= 32; group /= 2) {
    if (k % group == 0) return static_cast<int32_t>(group);
  }
  return 0;
}

}  // namespace switchyard::worker
