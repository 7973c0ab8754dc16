// The product of quant_batch.cuh for one weight format; a file each, so that they compile side by
// side.

#include "kernels/cuda/quant_batch.cuh"

namespace switchyard::kernels::cuda {
namespace {

// The same numbers by way of f16, where there is an instruction for that: four instructions a pair
// instead of five, which wait less for each other.
struct ConvertedFp8Format : Fp8Format {
  __device__ static uint32_t Converted(uint16_t two) {
    uint32_t bits;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(bits) : "h"(two));
    const __half2 pair = *reinterpret_cast<const __half2*>(&bits);
    return Pack(__low2float(pair), __high2float(pair));
  }
  __device__ static void Unpack(const uint4& v, int i, Lane lane, uint32_t (&pair)[4]) {
#if __CUDA_ARCH__ >= 890
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      uint16_t low, high;
      asm("mov.b32 {%0, %1}, %2;" : "=h"(low), "=h"(high) : "r"(WordOf(v, 2 * i + j)));
      pair[2 * j] = Converted(low), pair[2 * j + 1] = Converted(high);
    }
#else
    Fp8Format::Unpack(v, i, lane, pair);
#endif
  }
};

// By rows of x that are f16: one instruction a pair.
struct HalfFp8Format : Fp8Format {
  static constexpr bool kHalves = true;
  static constexpr float kFactor = kFp8HalfFactor / kHalfRows;

  __device__ static void Unpack(const uint4& v, int i, Lane, uint32_t (&pair)[4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) pair[j] = HalvesOfFp8(WordOf(v, 2 * i + j / 2), j % 2 == 1);
  }
};

}  // namespace

OpError QuantBatchFp8Matmul(const MatmulArgs& a, const LaunchContext& context) {
  if (a.halves) return RunQuantBatch<HalfFp8Format>(a, context);
  return RunQuantBatch<ConvertedFp8Format>(a, context);
}

}  // namespace switchyard::kernels::cuda
