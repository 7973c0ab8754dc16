#pragma once

// How a product's results are stored, the same for every variant.

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/matmul.h"

namespace switchyard::kernels::cuda {

// Row `row` of x that result row r multiplies.
__device__ inline int64_t InputRow(const MatmulArgs& a, int64_t r) {
  return a.x_row != nullptr ? a.x_row[r] : r / a.x_divide;
}

__device__ inline float Biased(const MatmulArgs& a, int64_t expert, int64_t n, float value) {
  return a.bias != nullptr ? value + a.bias[expert * a.n + n] : value;
}

template <Output kOutput>
__device__ inline void StoreResult(const MatmulArgs& a, int64_t expert, int64_t r, int64_t n,
                                   float value) {
  value = Biased(a, expert, n, value);
  if constexpr (kOutput == Output::kF32) {
    if (a.softcap > 0) value = a.softcap * tanhf(value / a.softcap);
    static_cast<float*>(a.out)[r * a.n + n] = value;
  } else {
    Bf16* out = static_cast<Bf16*>(a.out) + r * a.n + n;
    if (a.accumulate) value += __bfloat162float(*out);
    *out = __float2bfloat16_rn(value);
  }
}

// Gate and up of column i.
__device__ inline void StoreGateUp(const MatmulArgs& a, int64_t expert, int64_t r, int64_t i,
                                   float gate, float up) {
  const int64_t width = a.n / 2;
  gate = Biased(a, expert, i, gate);
  up = Biased(a, expert, width + i, up);
  static_cast<Bf16*>(a.out)[r * width + i] = __float2bfloat16_rn(Activate(a.activation, gate, up));
}

}  // namespace switchyard::kernels::cuda
