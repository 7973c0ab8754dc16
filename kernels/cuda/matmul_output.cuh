#pragma once

// How a product's results are stored, the same for every variant.

#include <type_traits>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/matmul.h"

namespace switchyard::kernels::cuda {

// run(std::integral_constant<Output, ...>()) of that of a variant's outputs which it is.
template <Output kFirst, Output... kOthers, class Run>
OpError ForOutput(Output output, const Run& run) {
  if (output == kFirst) return run(std::integral_constant<Output, kFirst>());
  if constexpr (sizeof...(kOthers) > 0) {
    return ForOutput<kOthers...>(output, run);
  } else {
    return {"the variant of the product has no such output"};
  }
}
// Of a variant that does not store q, k and v.
template <class Run>
OpError ForPlainOutput(Output output, const Run& run) {
  return ForOutput<Output::kBf16, Output::kF32, Output::kGateUp>(output, run);
}

// Row `row` of x that result row r multiplies.
__device__ inline int64_t InputRow(const MatmulArgs& a, int64_t r) {
  return a.x_row != nullptr ? a.x_row[r] : r / a.x_divide;
}

__device__ inline float Biased(const MatmulArgs& a, int64_t expert, int64_t n, float value) {
  return a.bias != nullptr ? value + a.bias[expert * a.n + n] : value;
}

// What a bf16 result is added to.
__device__ inline float Before(const MatmulArgs& a, int64_t expert, int64_t r, int64_t n) {
  const float there =
      a.accumulate ? __bfloat162float(static_cast<const Bf16*>(a.out)[r * a.n + n]) : 0.0f;
  return Biased(a, expert, n, there);
}

template <Output kOutput>
__device__ inline void StoreResult(const MatmulArgs& a, int64_t expert, int64_t r, int64_t n,
                                   float value) {
  if constexpr (kOutput == Output::kF32) {
    value = Biased(a, expert, n, value);
    if (a.softcap > 0) value = a.softcap * tanhf(value / a.softcap);
    static_cast<float*>(a.out)[r * a.n + n] = value;
  } else {
    static_cast<Bf16*>(a.out)[r * a.n + n] = __float2bfloat16_rn(value + Before(a, expert, r, n));
  }
}

// Columns n and n + 1, n even.
template <Output kOutput>
__device__ inline void StoreTwo(const MatmulArgs& a, int64_t expert, int64_t r, int64_t n,
                                float first, float second) {
  if constexpr (kOutput == Output::kBf16) {
    if (a.n % 2 == 0) {
      uint32_t* out = reinterpret_cast<uint32_t*>(static_cast<Bf16*>(a.out) + r * a.n + n);
      const uint32_t there = a.accumulate ? *out : 0;
      *out = Pack(Biased(a, expert, n, first + Low(there)),
                  Biased(a, expert, n + 1, second + High(there)));
      return;
    }
  }
  if constexpr (kOutput == Output::kF32) {
    if (a.n % 2 == 0 && !(a.softcap > 0)) {
      *reinterpret_cast<float2*>(static_cast<float*>(a.out) + r * a.n + n) =
          make_float2(Biased(a, expert, n, first), Biased(a, expert, n + 1, second));
      return;
    }
  }
  StoreResult<kOutput>(a, expert, r, n, first);
  if (n + 1 < a.n) StoreResult<kOutput>(a, expert, r, n + 1, second);
}

// Of column i.
__device__ inline float GateUp(const MatmulArgs& a, int64_t expert, int64_t i, float gate,
                               float up) {
  return Activate(a.activation, Biased(a, expert, i, gate), Biased(a, expert, a.n / 2 + i, up));
}
__device__ inline void StoreGateUp(const MatmulArgs& a, int64_t expert, int64_t r, int64_t i,
                                   float gate, float up) {
  static_cast<Bf16*>(a.out)[r * (a.n / 2) + i] =
      __float2bfloat16_rn(GateUp(a, expert, i, gate, up));
}

}  // namespace switchyard::kernels::cuda
