#pragma once

// The bytes of quantized checkpoint formats, and what they become in an image (kernels::Matrix).
// Pure functions over tiles that the caller has read and whose sizes it vouches for.

#include <cstdint>
#include <optional>
#include <span>

namespace switchyard::worker {

// Eight 4-bit numbers in rising order from the lowest nibble up, to the order of the image: 0 2 4 6
// 1 3 5 7.
constexpr uint32_t ToImageOrder(uint32_t in_order) {
  const auto gather = [](uint32_t v) {  // the even nibbles, close together
    v &= 0x0f0f0f0fu;
    v = (v | v >> 4) & 0x00ff00ffu;
    return (v | v >> 8) & 0xffffu;
  };
  return gather(in_order) | gather(in_order >> 4) << 16;
}

// AutoAWQ "gemm": tile[k_count][n/8], eight columns of n a word, from the lowest nibble up 0 2 4 6
// 1 3 5 7. Input features [first, first + k_count) of matrix [n][k/8]; first and k_count are
// multiples of 8.
void AwqWeights(const uint32_t* tile, int64_t k_count, int64_t first, int64_t n, int64_t k,
                uint32_t* matrix);
// GPTQ: tile[word_count][n], eight input features a word in order. Words [first, first +
// word_count) of matrix [n][k/8].
void GptqWeights(const uint32_t* tile, int64_t word_count, int64_t first, int64_t n, int64_t k,
                 uint32_t* matrix);

// Zero points to zeros[n][groups].
void AwqZeros(const uint32_t* words, int64_t groups, int64_t n, uint8_t* zeros);  // [groups][n/8]
void GptqZeros(const uint32_t* words, int64_t groups, int64_t n, int32_t offset,
               uint8_t* zeros);  // [groups][n/8], less `offset`
void PackedZeros(const uint32_t* words, int64_t groups, int64_t n,
                 uint8_t* zeros);  // [ceil(n/8)][groups]

// To nearest, ties to even; nothing if it is no finite f16.
std::optional<uint16_t> ToF16(float value);
float FromF16(uint16_t bits);

// True if no e4m3 number among them is "not a number".
bool AllF8Numbers(std::span<const std::byte> numbers);

}  // namespace switchyard::worker
