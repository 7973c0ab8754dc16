// Routing of up to 128 rows in one kernel: normed = norm(x), logits = router normed + bias, and of
// up to 128 experts the choice. Weights are float32, as images have them, or bf16.
//
// A block has eight experts, a warp each, and one row or four. It norms the rows into shared memory
// (so does every block of these rows; each writes its share of `normed`), then a warp goes over its
// weight row once for all of them, sixteen 16-byte loads in flight, which are asked for before the
// kernel in front has ended. A router has 0.5 to 2 MB: what counts is that no block reads much and
// that nothing is handed on through another kernel: the block that is the last of its rows to have
// stored its logits chooses. Bound by latency.

#include "kernels/cuda/choose.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/moe_choose.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * kWarp;
constexpr int kManyRows = kRouteFewRowsOfBlock;  // of a block, where there is more than one
constexpr int kEach = 4;                         // experts of a lane that chooses

// Blocks that have stored their logits, by rows; 0 between kernels. A worker has one stream.
__device__ uint32_t arrived[kRouteFewRows];

// Whether all other blocks of these rows have come here, and with that their logits can be seen.
__device__ inline bool IsLast() {
  __shared__ bool last;
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(&arrived[blockIdx.y], 1) == gridDim.x - 1;
    if (last) arrived[blockIdx.y] = 0;
  }
  __syncthreads();
  __threadfence();
  return last;
}

struct Eight {
  float4 low, high;
};

__device__ inline uint4 Scaled(const uint4& v, float factor, const Eight& norm) {
  return {Pack(Low(v.x) * factor * norm.low.x, High(v.x) * factor * norm.low.y),
          Pack(Low(v.y) * factor * norm.low.z, High(v.y) * factor * norm.low.w),
          Pack(Low(v.z) * factor * norm.high.x, High(v.z) * factor * norm.high.y),
          Pack(Low(v.w) * factor * norm.high.z, High(v.w) * factor * norm.high.w)};
}

// shared: [kRows][pieces], each row normed. Ends with a barrier.
template <int kRows>
__device__ void NormInto(const MoeRouteArgs& a, int64_t first, int rows, uint4* shared) {
  __shared__ float partial[kWarps][kRows];
  const int pieces = static_cast<int>(a.router.k / 8);
  const uint4* x = static_cast<const uint4*>(a.x) + first * pieces;
  uint4* normed = static_cast<uint4*>(a.normed) + first * pieces;
  float squares[kRows] = {};
#pragma unroll 2
  for (int i = threadIdx.x; i < pieces; i += kThreads) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const uint4 v = r < rows ? x[int64_t{r} * pieces + i] : make_uint4(0, 0, 0, 0);
      squares[r] = DotPiece(v, v, squares[r]);
      shared[r * pieces + i] = v;
    }
  }
  float factor[kRows] = {};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    squares[r] = WarpSum(squares[r]);
    if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp][r] = squares[r];
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int w = 0; w < kWarps; ++w) factor[r] += partial[w][r];
    factor[r] = rsqrtf(factor[r] / static_cast<float>(a.router.k) + a.eps);
  }
  for (int i = threadIdx.x; i < pieces; i += kThreads) {  // the pieces that this thread put there
    Eight norm = {{1, 1, 1, 1}, {1, 1, 1, 1}};
    if (a.norm != nullptr) {
      const float4* from = reinterpret_cast<const float4*>(a.norm) + 2 * i;
      norm = {__ldg(from), __ldg(from + 1)};
    }
    const bool ours = i / kWarp % gridDim.x == blockIdx.x;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const uint4 v = Scaled(shared[r * pieces + i], factor[r], norm);
      shared[r * pieces + i] = v;
      if (ours && r < rows) normed[int64_t{r} * pieces + i] = v;
    }
  }
  __syncthreads();
}

// Eight weights, of which a lane has kInFlight on their way at once.
struct EightBf16 {
  static constexpr int kInFlight = 16;
  uint4 v;
  __device__ void Load(const EightBf16* at) { v = LoadStream(&at->v); }
  __device__ float Dot(const uint4& x, float sum) const { return DotPiece(v, x, sum); }
};
struct EightF32 {
  static constexpr int kInFlight = 8;
  uint4 low, high;
  __device__ void Load(const EightF32* at) {
    low = LoadStream(&at->low);
    high = LoadStream(&at->high);
  }
  __device__ float Dot(const uint4& x, float sum) const {
    const auto two = [&](uint32_t first, uint32_t second, uint32_t pair) {
      sum = fmaf(__uint_as_float(first), Low(pair), sum);
      sum = fmaf(__uint_as_float(second), High(pair), sum);
    };
    two(low.x, low.y, x.x);
    two(low.z, low.w, x.y);
    two(high.x, high.y, x.z);
    two(high.z, high.w, x.w);
    return sum;
  }
};

template <class Weights>
__device__ inline void LoadPieces(Weights (&v)[Weights::kInFlight], const Weights* w, int first,
                                  int pieces) {
#pragma unroll
  for (int j = 0; j < Weights::kInFlight; ++j) {
    v[j] = {};
    if (const int i = first + j * kWarp; i < pieces) v[j].Load(w + i);
  }
}

template <int kRows, class Weights>
__global__ __launch_bounds__(kThreads, 2) void Route(const MoeRouteArgs a, bool chooses,
                                                     float* logits) {
  constexpr int kInFlight = Weights::kInFlight;
  extern __shared__ uint4 shared[];
  const int lane = threadIdx.x % kWarp, pieces = static_cast<int>(a.router.k / 8);
  const int64_t expert = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  const bool is_expert = expert < a.router.n;
  const int own_pieces = is_expert ? pieces : 0;
  const int64_t first = int64_t{blockIdx.y} * kRows;
  const int rows = static_cast<int>(min(int64_t{kRows}, a.rows - first));
  const Weights* w = static_cast<const Weights*>(a.router.data) + (is_expert ? expert : 0) * pieces;

  GridTrigger();
  Weights v[kInFlight];
  LoadPieces(v, w, lane, own_pieces);
  if (a.norm != nullptr) {  // into the first-level cache
    for (int i = threadIdx.x; i < pieces; i += kThreads) {
      asm volatile("prefetch.global.L1 [%0];" ::"l"(a.norm + i * 8));
    }
  }
  GridWait();
  NormInto<kRows>(a, first, rows, shared);

  float sum[kRows] = {};
  for (int i = lane; i < own_pieces; i += kInFlight * kWarp) {
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) {
      if (i + j * kWarp >= own_pieces) break;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        sum[r] = v[j].Dot(shared[r * pieces + i + j * kWarp], sum[r]);
      }
    }
    LoadPieces(v, w, i + kInFlight * kWarp, own_pieces);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) sum[r] = WarpSum(sum[r]);
  if (lane == 0 && is_expert) {
    const float bias = a.bias != nullptr ? a.bias[expert] : 0.0f;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (r < rows) logits[(first + r) * a.router.n + expert] = sum[r] + bias;
    }
  }
  if (!chooses || !IsLast()) return;
  const int r = threadIdx.x / kWarp;
  if (r < rows) ChooseExperts<kEach>(a, first + r, logits + (first + r) * a.router.n, nullptr);
}

template <int kRows, class Weights>
OpError Run(const MoeRouteArgs& a, float* logits, const LaunchContext& context) {
  const auto shared = static_cast<size_t>(RouteFewShared(a.router.k, kRows));
  const auto kernel = Route<kRows, Weights>;
  SWITCHYARD_RETURN_IF_OP_ERROR(AllowShared(kernel, shared));
  const dim3 grid(static_cast<unsigned>((a.router.n + kWarps - 1) / kWarps),
                  (a.rows + kRows - 1) / kRows);
  return Launch(context, grid, kThreads, shared, kernel, a, ChoosesItself(a), logits);
}

template <class Weights>
OpError Run(const MoeRouteArgs& a, float* logits, const LaunchContext& context) {
  return a.rows == 1 ? Run<1, Weights>(a, logits, context)
                     : Run<kManyRows, Weights>(a, logits, context);
}

}  // namespace

bool TakesRouteFew(const MoeRouteArgs& a) {
  return RoutesFew(a.router.dtype, a.router.k, a.rows) && Aligned(a.x) && Aligned(a.normed) &&
         Aligned(a.norm) && Aligned(a.router.data);
}

bool ChoosesItself(const MoeRouteArgs& a) {
  return a.router.n <= kEach * kWarp && !ClosesGroups(a);
}

OpError RouteFew(const MoeRouteArgs& a, float* logits, const LaunchContext& context) {
  return a.router.dtype == DType::kBF16 ? Run<EightBf16>(a, logits, context)
                                        : Run<EightF32>(a, logits, context);
}

}  // namespace switchyard::kernels::cuda
