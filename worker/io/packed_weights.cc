#include "worker/io/packed_weights.h"

#include <bit>
#include <cmath>
#include <cstddef>

namespace switchyard::worker {
namespace {

// Where the number of column c of eight lies in the image's order, and in AutoAWQ's: c % 2 * 4 + c
// / 2, as a shift.
constexpr int kShift[8] = {0, 16, 4, 20, 8, 24, 12, 28};

}  // namespace

void AwqWeights(const uint32_t* tile, int64_t k_count, int64_t first, int64_t n, int64_t k,
                uint32_t* matrix) {
  const int64_t words = n / 8;
  for (int64_t word = 0; word < words; ++word) {
    for (int64_t at = 0; at < k_count; at += 8) {
      uint32_t in[8];
      for (int64_t i = 0; i < 8; ++i) in[i] = tile[(at + i) * words + word];
      uint32_t* out = matrix + word * 8 * (k / 8) + (first + at) / 8;
      for (int64_t column = 0; column < 8; ++column) {
        uint32_t packed = 0;
        for (int i = 0; i < 8; ++i) packed |= (in[i] >> kShift[column] & 15u) << kShift[i];
        out[column * (k / 8)] = packed;
      }
    }
  }
}

void GptqWeights(const uint32_t* tile, int64_t word_count, int64_t first, int64_t n, int64_t k,
                 uint32_t* matrix) {
  for (int64_t row = 0; row < n; ++row) {
    uint32_t* out = matrix + row * (k / 8) + first;
    for (int64_t i = 0; i < word_count; ++i) out[i] = ToImageOrder(tile[i * n + row]);
  }
}

void AwqZeros(const uint32_t* words, int64_t groups, int64_t n, uint8_t* zeros) {
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t row = 0; row < n; ++row) {
      const uint32_t word = words[g * (n / 8) + row / 8];
      zeros[row * groups + g] = static_cast<uint8_t>(word >> kShift[row % 8] & 15u);
    }
  }
}

void GptqZeros(const uint32_t* words, int64_t groups, int64_t n, int32_t offset, uint8_t* zeros) {
  for (int64_t g = 0; g < groups; ++g) {
    for (int64_t row = 0; row < n; ++row) {
      const uint32_t word = words[g * (n / 8) + row / 8];
      zeros[row * groups + g] =
          static_cast<uint8_t>((word >> (row % 8 * 4) & 15u) + static_cast<uint32_t>(offset));
    }
  }
}

void PackedZeros(const uint32_t* words, int64_t groups, int64_t n, uint8_t* zeros) {
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t g = 0; g < groups; ++g) {
      const uint32_t word = words[row / 8 * groups + g];
      zeros[row * groups + g] = static_cast<uint8_t>(word >> (row % 8 * 4) & 15u);
    }
  }
}

std::optional<uint16_t> ToF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const float size = std::fabs(value);
  if (!(size < 65520.0f)) return std::nullopt;  // the next one would round to infinity
  if (size < 0x1p-14f) {                        // a multiple of 2^-24
    return static_cast<uint16_t>(sign | static_cast<uint32_t>(std::nearbyint(size * 0x1p24f)));
  }
  const uint32_t magnitude = bits & 0x7fffffffu;
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
  return static_cast<uint16_t>(sign | ((rounded >> 13) - (112u << 10)));
}

float FromF16(uint16_t bits) {
  const uint32_t sign = uint32_t{bits & 0x8000u} << 16;
  const uint32_t exponent = bits >> 10 & 31;
  const uint32_t mantissa = bits & 1023u;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7F800000u | mantissa << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float tiny = static_cast<float>(mantissa) * 0x1p-24f;
  return sign != 0 ? -tiny : tiny;
}

bool AllF8Numbers(std::span<const std::byte> numbers) {
  bool bad = false;
  for (const std::byte number : numbers) bad |= (number & std::byte{0x7f}) == std::byte{0x7f};
  return !bad;
}

}  // namespace switchyard::worker
