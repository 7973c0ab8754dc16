#include "worker/model/quantizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "worker/io/packed_weights.h"

namespace switchyard::worker {
namespace {

// e4m3 from its definition.
double F8Value(int bits) {
  const int exponent = bits >> 3 & 15, fraction = bits & 7;
  const double size =
      exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
  return bits & 0x80 ? -size : size;
}

TEST(Quantizer, EveryF8NumberComesBack) {
  for (int bits = 0; bits < 256; ++bits) {
    if ((bits & 0x7f) == 0x7f) continue;
    EXPECT_EQ(FromF8(static_cast<uint8_t>(bits)), F8Value(bits));
    EXPECT_EQ(ToF8(static_cast<float>(F8Value(bits))), bits);
  }
  EXPECT_EQ(FromF8(ToF8(1e9f)), 448);
  EXPECT_EQ(FromF8(ToF8(-1e9f)), -448);
}

TEST(Quantizer, F8RoundsToTheNearest) {
  std::mt19937 random(1);
  std::uniform_real_distribution<float> exponent(-12, 8.8f);
  for (int i = 0; i < 20000; ++i) {
    const float x = std::exp2(exponent(random));
    double nearest = 1e9;
    for (int bits = 0; bits < 127; ++bits)
      nearest = std::min(nearest, std::fabs(F8Value(bits) - x));
    EXPECT_EQ(std::fabs(double{FromF8(ToF8(x))} - x), nearest) << x;
  }
}

TEST(Quantizer, F8RowUsesItsRange) {
  const std::vector<float> row = {0.5f, -2.0f, 0, 1e-9f};
  std::vector<uint8_t> numbers(4);
  float scale = 0;
  const QuantizationError error = QuantizeF8(row, numbers.data(), &scale);
  EXPECT_EQ(scale, 2.0f / 448);
  EXPECT_EQ(FromF8(numbers[1]), -448);
  EXPECT_NEAR(error.squared_weights, 4.25, 1e-12);
  EXPECT_LT(error.Relative(), 0.01);
  const std::vector<float> zeros(4);
  EXPECT_EQ(QuantizeF8(zeros, numbers.data(), &scale).Relative(), 0);
  EXPECT_EQ(numbers[0], 0);
}

struct Int4 {
  QuantizationError error;
  std::vector<double> values;
};

Int4 Quantized(const std::vector<float>& group) {
  std::vector<uint32_t> words(group.size() / 8);
  uint16_t scale = 0;
  Int4 result{.error = QuantizeInt4(group, words.data(), &scale), .values = {}};
  for (size_t i = 0; i < group.size(); ++i) {
    const int shift = static_cast<int>(i % 2 * 16 + i % 8 / 2 * 4);  // the image's order
    const int level = static_cast<int>(words[i / 8] >> shift & 15) - 8;
    result.values.push_back(level * double{FromF16(scale)});
  }
  return result;
}

TEST(Quantizer, Int4ReportsTheErrorThatItMakes) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal(0, 0.02f);
  double chosen = 0, plain = 0, all = 0;
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<float> group(128);
    float largest = 0;
    for (float& x : group) largest = std::max(largest, std::fabs(x = normal(random)));
    const Int4 result = Quantized(group);
    double squared = 0;
    for (size_t i = 0; i < group.size(); ++i) {
      squared += std::pow(group[i] - result.values[i], 2);
      const double step = largest / 7.5;  // the largest weight at the end of the range
      plain +=
          std::pow(group[i] - step * std::clamp(std::nearbyint(group[i] / step), -8.0, 7.0), 2);
      all += double{group[i]} * group[i];
    }
    EXPECT_NEAR(result.error.squared_error, squared, 1e-9 * squared);
    chosen += squared;
  }
  EXPECT_LT(chosen, 0.92 * plain);
  EXPECT_LT(std::sqrt(chosen / all), 0.11);
}

TEST(Quantizer, Int4OfOddGroups) {
  EXPECT_EQ(Quantized(std::vector<float>(32)).error.squared_error, 0);
  std::vector<float> one(32);
  one[5] = -3;
  EXPECT_LT(Quantized(one).error.Relative(), 1e-3);
  std::vector<float> tiny(32, 1e-30f);
  EXPECT_EQ(Quantized(tiny).values[3], 0);  // below what f16 scales can say
  std::vector<float> huge(32, 1e30f);
  EXPECT_EQ(Quantized(huge).values[3], 8 * 65504.0);
  one[6] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_FALSE(std::isfinite(Quantized(one).error.squared_weights));
}

TEST(Quantizer, GroupsThatDivideARow) {
  EXPECT_EQ(Int4Group(4096), 128);
  EXPECT_EQ(Int4Group(2880), 64);
  EXPECT_EQ(Int4Group(96), 32);
  EXPECT_EQ(Int4Group(48), 0);
}

}  // namespace
}  // namespace switchyard::worker
