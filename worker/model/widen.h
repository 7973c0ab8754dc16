#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "worker/io/packed_weights.h"
#include "worker/io/tensor_type.h"

namespace switchyard::worker {

// Element i of a tensor of F32, BF16 or F16.
inline float Widen(const std::byte* from, TensorType type, uint64_t i) {
  if (type == TensorType::kF32) {
    float value;
    std::memcpy(&value, from + 4 * i, 4);
    return value;
  }
  uint16_t half;
  std::memcpy(&half, from + 2 * i, 2);
  return type == TensorType::kBF16 ? std::bit_cast<float>(uint32_t{half} << 16) : FromF16(half);
}

// Where element `j` of a row of `width` goes: even ones to the front half, odd ones behind.
inline uint64_t Deinterleaved(uint64_t j, uint64_t width) { return j / 2 + (j % 2) * (width / 2); }

}  // namespace switchyard::worker
