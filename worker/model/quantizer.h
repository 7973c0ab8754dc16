#pragma once

// Quantizes weights while an image is built (`quantize:` in models.d). Pure.

#include <cstdint>
#include <span>

namespace switchyard::worker {

// What quantizing did: sums over weights.
struct QuantizationError {
  double squared_error = 0;    // of (weight - what became of it)
  double squared_weights = 0;  // of weights; not finite if one of them is not: nothing was written

  QuantizationError& operator+=(const QuantizationError& other) {
    squared_error += other.squared_error;
    squared_weights += other.squared_weights;
    return *this;
  }
  // Root mean square error by that of the weights.
  double Relative() const;
};

// To e4m3, to nearest; beyond 448 the largest.
uint8_t ToF8(float value);
float FromF8(uint8_t bits);

// One row: the largest weight becomes 448.
QuantizationError QuantizeF8(std::span<const float> row, uint8_t* numbers, float* scale);

// One group of a row, a multiple of 8 numbers, into words in the image's order, zero point 8. The
// scale (f16) is that of least squared error among the best for 19 ways to map the largest weight.
QuantizationError QuantizeInt4(std::span<const float> group, uint32_t* words, uint16_t* scale);

// The group that a row of k weights is cut into: 128, 64 or 32; 0: none divides it.
int32_t Int4Group(int64_t k);

}  // namespace switchyard::worker
