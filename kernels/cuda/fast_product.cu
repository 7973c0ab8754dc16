// Products of many rows with fp8 activations (fast_prefill): each row of x becomes e4m3 times the
// row's largest / 448, cuBLASLt multiplies that with e4m3 weights that have a scale per row, and a
// last kernel multiplies a result by both scales. The library can scale by rows itself on some
// cards only; this works on all that multiply fp8, from compute capability 8.9 on.
//
// Both kernels are bound by memory: a thread takes eight elements at a time.

#include <algorithm>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/kv_pages.cuh"
#include "kernels/cuda/matmul_output.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kThreads = 256, kEach = 8;
constexpr float kLargest = 448.0f;  // of e4m3

__device__ inline float LargestOf(const uint4& v) {
  const auto two = [](uint32_t pair) { return fmaxf(fabsf(Low(pair)), fabsf(High(pair))); };
  return fmaxf(fmaxf(two(v.x), two(v.y)), fmaxf(two(v.z), two(v.w)));
}

__device__ inline uint32_t Narrow(uint32_t first, uint32_t second, float factor) {
  const auto two = [&](uint32_t pair) {
    const float2 scaled = {Low(pair) * factor, High(pair) * factor};
    return static_cast<uint32_t>(__nv_cvt_float2_to_fp8x2(scaled, __NV_SATFINITE, __NV_E4M3));
  };
  return two(first) | two(second) << 16;
}

// A block a row of x: [rows][k], k a multiple of 16.
__global__ __launch_bounds__(kThreads) void QuantizeRows(const Bf16* x, int64_t k, uint8_t* out,
                                                         float* scales) {
  __shared__ float largest_of[kThreads / kWarp];
  GridTrigger();
  GridWait();
  const int64_t row = blockIdx.x, pieces = k / kEach;
  const uint4* from = reinterpret_cast<const uint4*>(x + row * k);
  float largest = 0;
  for (int64_t i = threadIdx.x; i < pieces; i += kThreads) {
    largest = fmaxf(largest, LargestOf(from[i]));
  }
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, offset));
  }
  if (threadIdx.x % kWarp == 0) largest_of[threadIdx.x / kWarp] = largest;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < kThreads / kWarp; ++w) largest = fmaxf(largest, largest_of[w]);
  const float factor = largest > 0 ? kLargest / largest : 0;
  if (threadIdx.x == 0) scales[row] = largest / kLargest;
  uint2* to = reinterpret_cast<uint2*>(out + row * k);
  for (int64_t i = threadIdx.x; i < pieces; i += kThreads) {
    const uint4 v = from[i];
    to[i] = {Narrow(v.x, v.y, factor), Narrow(v.z, v.w, factor)};
  }
}

struct Scales {
  const float* row;     // of x, [rows]
  const float* column;  // of w, [n]
};

// Results of fp8 numbers alone, as they are to be: from `raw` (bf16, perhaps a.out itself) to
// a.out, or of f32 in a.out.
template <Output kOutput>
__global__ __launch_bounds__(kThreads) void ScaleResults(const MatmulArgs a, const Bf16* raw,
                                                         Scales scales) {
  GridTrigger();
  GridWait();
  const int64_t r = blockIdx.y, n = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kEach;
  if (n >= a.n) return;
  const float row = scales.row[r];
  const auto store = [&](int64_t at, float first, float second) {
    StoreTwo<kOutput>(a, 0, r, at, first * row * scales.column[at],
                      second * row * scales.column[at + 1]);
  };
  if constexpr (kOutput == Output::kF32) {
    const float4* from = reinterpret_cast<const float4*>(static_cast<float*>(a.out) + r * a.n + n);
    const float4 low = from[0], high = from[1];
    store(n, low.x, low.y);
    store(n + 2, low.z, low.w);
    store(n + 4, high.x, high.y);
    store(n + 6, high.z, high.w);
  } else {
    const uint4 v = *reinterpret_cast<const uint4*>(raw + r * a.n + n);
    store(n, Low(v.x), High(v.x));
    store(n + 2, Low(v.y), High(v.y));
    store(n + 4, Low(v.z), High(v.z));
    store(n + 6, Low(v.w), High(v.w));
  }
}

}  // namespace

namespace {

void TakeFast(FastScratch& s, ScratchCutter& cut, int64_t rows, int64_t n, int64_t k, bool adds) {
  s.x = cut.Take<uint8_t>(rows * k);
  s.scales = cut.Take<float>(rows);
  if (adds) s.raw = cut.Take<__nv_bfloat16>(rows * n);
}

}  // namespace

int64_t FastScratch::Bytes(int64_t rows, int64_t n, int64_t k, bool adds) {
  FastScratch s;
  ScratchCutter cut;
  TakeFast(s, cut, rows, n, k, adds);
  return cut.used();
}

bool FastScratch::Take(Scratch workspace, int64_t rows, const MatmulArgs& a) {
  ScratchCutter cut({workspace.data, workspace.bytes - CublasLt::kWorkspaceBytes});
  raw = static_cast<__nv_bfloat16*>(a.out);
  TakeFast(*this, cut, rows, a.n, a.k, a.accumulate);
  rest = {static_cast<char*>(workspace.data) + cut.used(), workspace.bytes - cut.used()};
  return cut.ok();
}

OpError QuantizeActivations(const MatmulArgs& a, const FastScratch& s,
                            const LaunchContext& context) {
  return Launch(context, a.rows, kThreads, 0, QuantizeRows, a.x, a.k, s.x, s.scales);
}

OpError StoreFast(const MatmulArgs& a, const FastScratch& s, const LaunchContext& context) {
  const dim3 grid(static_cast<unsigned>((a.n + kThreads * kEach - 1) / (kThreads * kEach)), a.rows);
  const Scales scales = {s.scales, static_cast<const float*>(a.scales)};
  const auto kernel =
      a.output == Output::kF32 ? ScaleResults<Output::kF32> : ScaleResults<Output::kBf16>;
  return Launch(context, grid, kThreads, 0, kernel, a, s.raw, scales);
}

}  // namespace switchyard::kernels::cuda
