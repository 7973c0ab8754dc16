#include "worker/io/packed_weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

namespace switchyard::worker {
namespace {

using Words = std::vector<uint32_t>;

// [rows][columns] of 4-bit numbers.
std::vector<int> Levels(int64_t count) {
  std::mt19937 random(7);
  std::vector<int> levels(count);
  for (int& level : levels) level = static_cast<int>(random() % 16);
  return levels;
}

// Column k of a row of the image's words.
int ImageLevel(const Words& words, int64_t at) {
  constexpr int kNibbleOfColumn[8] = {0, 4, 1, 5, 2, 6, 3, 7};
  return static_cast<int>(words[at / 8] >> (4 * kNibbleOfColumn[at % 8]) & 15);
}

TEST(PackedWeights, ImageOrder) {
  EXPECT_EQ(ToImageOrder(0x76543210u), 0x75316420u);
  EXPECT_EQ(ToImageOrder(0xFFFFFFFFu), 0xFFFFFFFFu);
  const Words words = {ToImageOrder(0x8A9BCDEFu)};
  const int expected[] = {15, 14, 13, 12, 11, 9, 10, 8};
  for (int i = 0; i < 8; ++i) EXPECT_EQ(ImageLevel(words, i), expected[i]);
}

// Tiles of 8 and 24 input features, so that both ends of a matrix are reached.
TEST(PackedWeights, Awq) {
  constexpr int64_t kN = 24, kK = 32;
  const std::vector<int> levels = Levels(kN * kK);  // [k][n]
  constexpr int kOrder[8] = {0, 2, 4, 6, 1, 3, 5, 7};
  Words file(kK * kN / 8), matrix(kN * kK / 8);
  for (int64_t k = 0; k < kK; ++k) {
    for (int64_t n = 0; n < kN; n += 8) {
      for (int i = 0; i < 8; ++i) {
        file[k * (kN / 8) + n / 8] |= static_cast<uint32_t>(levels[k * kN + n + kOrder[i]])
                                      << 4 * i;
      }
    }
  }
  AwqWeights(file.data(), 8, 0, kN, kK, matrix.data());
  AwqWeights(file.data() + 8 * (kN / 8), 24, 8, kN, kK, matrix.data());
  for (int64_t n = 0; n < kN; ++n) {
    for (int64_t k = 0; k < kK; ++k) EXPECT_EQ(ImageLevel(matrix, n * kK + k), levels[k * kN + n]);
  }
  std::vector<uint8_t> zeros(kK * kN);  // the same words, read as zero points of 32 groups
  AwqZeros(file.data(), kK, kN, zeros.data());
  for (int64_t n = 0; n < kN; ++n) {
    for (int64_t g = 0; g < kK; ++g) EXPECT_EQ(zeros[n * kK + g], levels[g * kN + n]);
  }
}

TEST(PackedWeights, Gptq) {
  constexpr int64_t kN = 11, kK = 40;
  const std::vector<int> levels = Levels(kN * kK);  // [k][n]
  Words file(kK / 8 * kN), matrix(kN * kK / 8);
  for (int64_t k = 0; k < kK; ++k) {
    for (int64_t n = 0; n < kN; ++n) {
      file[k / 8 * kN + n] |= static_cast<uint32_t>(levels[k * kN + n]) << 4 * (k % 8);
    }
  }
  GptqWeights(file.data(), 2, 0, kN, kK, matrix.data());
  GptqWeights(file.data() + 2 * kN, 3, 2, kN, kK, matrix.data());
  for (int64_t n = 0; n < kN; ++n) {
    for (int64_t k = 0; k < kK; ++k) EXPECT_EQ(ImageLevel(matrix, n * kK + k), levels[k * kN + n]);
  }
}

TEST(PackedWeights, ZeroPoints) {
  const Words words = {0x76543210u, 0xFEDCBA98u};
  std::vector<uint8_t> zeros(16);
  GptqZeros(words.data(), 2, 8, 1, zeros.data());  // two groups of eight rows
  EXPECT_EQ(zeros, (std::vector<uint8_t>{1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15, 8, 16}));
  std::vector<uint8_t> some(10);
  PackedZeros(words.data(), 1, 10, some.data());  // one group of ten rows
  EXPECT_EQ(some, (std::vector<uint8_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

TEST(PackedWeights, EveryF16NumberComesBack) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const uint16_t half = static_cast<uint16_t>(bits);
    const float value = FromF16(half);
    if ((bits >> 10 & 31) == 31) {
      EXPECT_EQ(ToF16(value), std::nullopt);
    } else {
      EXPECT_EQ(ToF16(value), half);
    }
  }
  EXPECT_EQ(ToF16(65519.0f), 0x7bff);
  EXPECT_EQ(ToF16(65520.0f), std::nullopt);
  EXPECT_EQ(FromF16(*ToF16(1.0f + 0x1p-11f)), 1.0f);  // a tie, to even
  EXPECT_EQ(FromF16(*ToF16(1.0f + 0x3p-11f)), 1.0f + 0x1p-9f);
  EXPECT_EQ(FromF16(*ToF16(0x1p-25f)), 0.0f);
  EXPECT_EQ(FromF16(*ToF16(0x1.fffp-15f)), 0x1p-14f);
}

TEST(PackedWeights, F8ThatIsNoNumber) {
  std::vector<std::byte> numbers(100, std::byte{0x7e});
  EXPECT_TRUE(AllF8Numbers(numbers));
  numbers[99] = std::byte{0xff};
  EXPECT_FALSE(AllF8Numbers(numbers));
}

}  // namespace
}  // namespace switchyard::worker
