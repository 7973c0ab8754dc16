// Matrix-vector product of bf16 weights: decode of one sequence, and each chosen expert's.
//
// One weight row a warp, four 16-byte loads in flight and the next four asked for before those are
// used; x lies in shared memory as bf16. The norm in front is folded in: shared memory gets x times
// the norm's weight, and 1 / rms multiplies the sum. gate and up of a column are neighbouring
// warps that meet in shared memory. The first eight loads of the weights are issued before the
// kernel waits for the one in front of it, which hides the gap between them; whatever else the
// epilogue needs is looked up before the main loop. One row of qkv goes through decode_matmul.cuh.
//
// Bound by memory. On an H200 (read limit 4.60 to 4.70 TB/s) the chain of an 8B step's products
// reaches 84 to 85% of it in a graph; the head alone 92 to 95%, gate/up 87 to 90, down 88, o 74 and
// qkv 62 to 65: short products do not fill the gap to the next. Tried: without programmatic launch
// 79%; eight rows a block 81%; reloading each register as soon as it is used, for 40 or 48 resident
// warps a multiprocessor instead of 32, 66 to 76%. Eight instead of four loads ahead of the kernel
// in front made no difference that is above the noise.

#include <algorithm>

#include "kernels/cuda/matmul_output.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kInFlight = 4;

template <Output kOutput, int kWarps>
__device__ int32_t WeightRow(const MatmulArgs& a, int warp) {
  const int32_t pair = blockIdx.x * (kWarps / 2) + warp / 2;
  if constexpr (kOutput == Output::kGateUp) {
    const int32_t width = static_cast<int32_t>(a.n / 2);
    return pair < width ? warp % 2 * width + pair : -1;
  } else {
    const int32_t n = blockIdx.x * kWarps + warp;
    return n < a.n ? n : -1;
  }
}

// The staged pieces of this thread times the norm's weight; its part of the sum of squares.
__device__ float NormStaged(const float* weights, int pieces, uint4* shared) {
  const float4* norm = reinterpret_cast<const float4*>(weights);
  float squares = 0;
#pragma unroll 1
  for (int i = threadIdx.x; i < pieces; i += blockDim.x) {
    uint4 v = shared[i];
    squares = DotPiece(v, v, squares);
    float4 n = __ldg(norm + 2 * i);
    v.x = Pack(Low(v.x) * n.x, High(v.x) * n.y);
    v.y = Pack(Low(v.y) * n.z, High(v.y) * n.w);
    n = __ldg(norm + 2 * i + 1);
    v.z = Pack(Low(v.z) * n.x, High(v.z) * n.y);
    v.w = Pack(Low(v.w) * n.z, High(v.w) * n.w);
    shared[i] = v;
  }
  return squares;
}

__device__ inline void LoadPieces(uint4 (&v)[kInFlight], const uint4* w, int first, int pieces) {
#pragma unroll
  for (int j = 0; j < kInFlight; ++j) {
    const int i = first + j * kWarp;
    v[j] = i < pieces ? LoadStream(w + i) : make_uint4(0, 0, 0, 0);
  }
}

template <Output kOutput, int kWarps>
__global__ __launch_bounds__(kWarps* kWarp, 32 / kWarps) void Gemv(const MatmulArgs a) {
  constexpr bool kPairs = kOutput == Output::kGateUp;
  extern __shared__ uint4 shared_x[];
  __shared__ float partial[kWarps], result[kWarps];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int32_t r = blockIdx.y;
  const int32_t row = WeightRow<kOutput, kWarps>(a, warp);
  const int32_t pair = blockIdx.x * (kWarps / 2) + threadIdx.x;  // of the first threads
  const bool has_pair = kPairs && threadIdx.x < kWarps / 2 && pair < a.n / 2;
  const int pieces = static_cast<int>(a.k / 8), own_pieces = row < 0 ? 0 : pieces;

  GridTrigger();
  int32_t expert = 0;
  if (a.expert != nullptr) {  // chosen by the kernel before
    GridWait();
    expert = a.expert[r];
  }
  const uint4* w = reinterpret_cast<const uint4*>(
      static_cast<const Bf16*>(a.w) + (int64_t{expert} * a.n + (row < 0 ? 0 : row)) * a.k);
  uint4 v[kInFlight], next[kInFlight];
  LoadPieces(v, w, lane, own_pieces);
  LoadPieces(next, w, lane + kInFlight * kWarp, own_pieces);
  if (a.norm != nullptr) {  // the norm's weights into the first-level cache
    for (int i = threadIdx.x; i < pieces; i += kWarps * kWarp) {
      asm volatile("prefetch.global.L1 [%0];" ::"l"(a.norm + i * 8));
    }
  }
  if (a.expert == nullptr) GridWait();

  const uint4* x = reinterpret_cast<const uint4*>(a.x + InputRow(a, r) * a.k);
  for (int i = threadIdx.x; i < pieces; i += kWarps * kWarp) CopyAsync(shared_x + i, x + i, true);
  CopyCommit();
  float before = 0;  // what the result is added to
  if constexpr (kOutput == Output::kBf16) {
    if (lane == 0 && row >= 0) before = Before(a, expert, r, row);
  }
  CopyWait<0>();
  if (a.norm != nullptr) {
    const float squares = WarpSum(NormStaged(a.norm, pieces, shared_x));
    if (lane == 0) partial[warp] = squares;
  }
  __syncthreads();

  float sum = 0;
  for (int i = lane; i < own_pieces; i += kInFlight * kWarp) {
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) {
      if (i + j * kWarp < own_pieces) sum = DotPiece(v[j], shared_x[i + j * kWarp], sum);
    }
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) v[j] = next[j];
    LoadPieces(next, w, i + 2 * kInFlight * kWarp, own_pieces);
  }
  sum = WarpSum(sum);
  if (a.norm != nullptr) {
    float total = 0;
#pragma unroll
    for (int i = 0; i < kWarps; ++i) total += partial[i];
    sum *= rsqrtf(total / static_cast<float>(a.k) + a.eps);
  }

  if constexpr (kPairs) {
    if (lane == 0) result[warp] = sum;
    __syncthreads();
    if (!has_pair) return;
    const float first = result[2 * threadIdx.x], second = result[2 * threadIdx.x + 1];
    StoreGateUp(a, expert, r, pair, first, second);
  } else if constexpr (kOutput == Output::kBf16) {
    if (lane == 0 && row >= 0) {
      static_cast<Bf16*>(a.out)[int64_t{r} * a.n + row] = __float2bfloat16_rn(sum + before);
    }
  } else {
    if (lane == 0 && row >= 0) StoreResult<kOutput>(a, expert, r, row, sum);
  }
}

template <Output kOutput, int kWarps>
OpError Run(const MatmulArgs& a, const LaunchContext& context) {
  const auto kernel = Gemv<kOutput, kWarps>;
  const size_t shared = a.k * sizeof(Bf16);
  SWITCHYARD_RETURN_IF_OP_ERROR(AllowShared(kernel, shared));
  const dim3 grid(static_cast<unsigned>((a.n + kWarps - 1) / kWarps), a.rows);
  return Launch(context, grid, kWarps * kWarp, shared, kernel, a);
}

template <int kWarps>
OpError Run(const MatmulArgs& a, const LaunchContext& context) {
  switch (a.output) {
    case Output::kBf16:
      return Run<Output::kBf16, kWarps>(a, context);
    case Output::kF32:
      return Run<Output::kF32, kWarps>(a, context);
    case Output::kGateUp:
      return Run<Output::kGateUp, kWarps>(a, context);
    case Output::kQkv:
      break;
  }
  return {"no such output"};
}

}  // namespace

OpError GemvMatmul(const MatmulArgs& a, int warps, const LaunchContext& context) {
  return warps == 8 ? Run<8>(a, context) : Run<16>(a, context);
}

}  // namespace switchyard::kernels::cuda
