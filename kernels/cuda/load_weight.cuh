#pragma once

// One weight of a matrix of any type, by the letter of ops.h: for embeddings and for shapes that
// the fast kernels do not take.

#include "kernels/cuda/device.cuh"

namespace switchyard::kernels::cuda {

__device__ inline float E4m3(uint32_t bits) {
  const int exponent = static_cast<int>(bits >> 3 & 15), fraction = static_cast<int>(bits & 7);
  const float size = exponent == 0 ? ldexpf(static_cast<float>(fraction), -9)
                                   : ldexpf(static_cast<float>(8 + fraction), exponent - 10);
  return bits & 0x80 ? -size : size;
}

__device__ inline float E2m1(uint32_t bits) {
  const int exponent = static_cast<int>(bits >> 1 & 3), fraction = static_cast<int>(bits & 1);
  const float size = exponent == 0 ? 0.5f * static_cast<float>(fraction)
                                   : ldexpf(static_cast<float>(2 + fraction), exponent - 2);
  return bits & 8 ? -size : size;
}

__device__ inline float LoadWeight(const Matrix& w, int64_t batch, int64_t row, int64_t column) {
  const int64_t at = (batch * w.n + row) * w.k + column;
  if (w.dtype <= DType::kF16) return LoadElement(w.data, w.dtype, at);
  if (w.dtype == DType::kF8E4M3) {
    const int64_t scale =
        w.group == 0
            ? batch * w.n + row
            : (batch * ((w.n + 127) / 128) + row / 128) * ((w.k + 127) / 128) + column / 128;
    return E4m3(static_cast<const uint8_t*>(w.data)[at]) *
           static_cast<const float*>(w.scales)[scale];
  }
  const uint32_t word = static_cast<const uint32_t*>(w.data)[at / 8];
  const uint32_t bits = word >> (at % 8 / 2 * 4 + at % 2 * 16) & 15;
  const int64_t group = (batch * w.n + row) * (w.k / w.group) + column / w.group;
  if (w.dtype == DType::kMxfp4) {
    return ldexpf(E2m1(bits), static_cast<const uint8_t*>(w.scales)[group] - 127);
  }
  const int zero = w.zeros != nullptr ? static_cast<const uint8_t*>(w.zeros)[group] : 8;
  return static_cast<float>(static_cast<int>(bits) - zero) *
         __half2float(static_cast<const __half*>(w.scales)[group]);
}

}  // namespace switchyard::kernels::cuda
