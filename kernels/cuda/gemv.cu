// Matrix-vector product of bf16 weights: decode of one sequence, and each chosen expert's.
//
// One weight row a warp, four 16-byte loads in flight and the next four asked for before those are
// used; x lies in shared memory as bf16. The norm in front is folded in: shared memory gets x times
// the norm's weight, and 1 / rms multiplies the sum. gate and up of a column, and the two halves of
// a rotated pair, are neighbouring warps that meet in shared memory. The first loads of the weights
// are issued before the kernel waits for the one in front of it, which hides the gap between them.
//
// Bound by memory. Tried, as a bare chain on an H200: two or four rows a warp, or eight loads, are
// slower (75 to 90% of the read limit against 94%).

#include <algorithm>

#include "kernels/cuda/kv_pages.cuh"
#include "kernels/cuda/matmul_output.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kInFlight = 4;

struct QkvPlace {
  int32_t head, first, second;  // elements of the head
  bool rotated;
};

// Element pairs of all heads in order: (i, i + dim / 2) in the rotated part, neighbours after it.
__device__ QkvPlace PlaceOfPair(const QkvOutput& q, int64_t pair) {
  const int32_t half = q.head_dim / 2;
  const int32_t head = static_cast<int32_t>(pair / half), i = static_cast<int32_t>(pair % half);
  const int32_t rotated = q.rope.dim / 2;
  const bool rotates = i < rotated && head < q.q_heads + q.kv_heads;
  if (i < rotated) return {head, i, i + rotated, rotates};
  const int32_t rest = q.rope.dim + 2 * (i - rotated);
  return {head, rest, rest + 1, false};
}

template <Output kOutput, int kWarps>
__device__ int64_t WeightRow(const MatmulArgs& a, int warp) {
  const int64_t pair = int64_t{blockIdx.x} * (kWarps / 2) + warp / 2;
  if constexpr (kOutput == Output::kGateUp) {
    return pair < a.n / 2 ? (warp % 2) * (a.n / 2) + pair : -1;
  } else if constexpr (kOutput == Output::kQkv) {
    if (pair >= a.n / 2) return -1;
    const QkvPlace place = PlaceOfPair(a.qkv, pair);
    return int64_t{place.head} * a.qkv.head_dim + (warp % 2 == 0 ? place.first : place.second);
  } else {
    const int64_t n = int64_t{blockIdx.x} * kWarps + warp;
    return n < a.n ? n : -1;
  }
}

__device__ void StoreQkv(const MatmulArgs& a, int64_t pair, float first, float second) {
  const QkvOutput& q = a.qkv;
  const int32_t slot = q.rows.slot[0], position = q.rows.position[0];
  if (slot < 0) return;
  const QkvPlace place = PlaceOfPair(q, pair);
  const int64_t n = int64_t{place.head} * q.head_dim;
  first = Biased(a, 0, n + place.first, first);
  second = Biased(a, 0, n + place.second, second);
  if (place.rotated) Rotate(q.rope, position, place.first, first, second);
  Bf16* to = q.q + n;
  if (place.head >= q.q_heads) {
    const int32_t kv_head = place.head - q.q_heads;
    const bool value = kv_head >= q.kv_heads;
    to = KvRow(q.kv, value ? q.kv.value_offset : q.kv.key_offset, slot, position,
               value ? kv_head - q.kv_heads : kv_head, q.head_dim);
  }
  to[place.first] = __float2bfloat16_rn(first);
  to[place.second] = __float2bfloat16_rn(second);
}

// x (times the norm's weight) to shared memory; this thread's part of the sum of squares.
__device__ float StageInput(const MatmulArgs& a, int64_t row, uint4* shared) {
  const uint4* x = reinterpret_cast<const uint4*>(a.x + row * a.k);
  const float4* norm = reinterpret_cast<const float4*>(a.norm);
  const int pieces = static_cast<int>(a.k / 8);
  float squares = 0;
  for (int i = threadIdx.x; i < pieces; i += blockDim.x) {
    uint4 v = x[i];
    if (norm != nullptr) {
      squares = DotPiece(v, v, squares);
      const float4 n0 = __ldg(norm + 2 * i), n1 = __ldg(norm + 2 * i + 1);
      v.x = Pack(Low(v.x) * n0.x, High(v.x) * n0.y);
      v.y = Pack(Low(v.y) * n0.z, High(v.y) * n0.w);
      v.z = Pack(Low(v.z) * n1.x, High(v.z) * n1.y);
      v.w = Pack(Low(v.w) * n1.z, High(v.w) * n1.w);
    }
    shared[i] = v;
  }
  return squares;
}

__device__ void LoadPieces(uint4 (&v)[kInFlight], const uint4* w, int first, int pieces) {
#pragma unroll
  for (int j = 0; j < kInFlight; ++j) {
    const int i = first + j * kWarp;
    v[j] = i < pieces ? LoadStream(w + i) : make_uint4(0, 0, 0, 0);
  }
}

template <Output kOutput, int kWarps>
__global__ __launch_bounds__(kWarps* kWarp) void Gemv(const MatmulArgs a) {
  extern __shared__ uint4 shared_x[];
  __shared__ float partial[kWarps], result[kWarps];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t r = blockIdx.y;
  const int64_t row = WeightRow<kOutput, kWarps>(a, warp);
  const int pieces = row < 0 ? 0 : static_cast<int>(a.k / 8);

  GridTrigger();
  int64_t expert = 0;
  if (a.expert != nullptr) {  // chosen by the kernel before
    GridWait();
    expert = a.expert[r];
  }
  const uint4* w = reinterpret_cast<const uint4*>(static_cast<const Bf16*>(a.w) +
                                                  (expert * a.n + (row < 0 ? 0 : row)) * a.k);
  uint4 next[kInFlight];
  LoadPieces(next, w, lane, pieces);
  if (a.expert == nullptr) GridWait();

  const float squares = WarpSum(StageInput(a, InputRow(a, r), shared_x));
  if (lane == 0) partial[warp] = squares;
  __syncthreads();

  float sum = 0;
  for (int i = lane; i < pieces; i += kInFlight * kWarp) {
    uint4 v[kInFlight];
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) v[j] = next[j];
    LoadPieces(next, w, i + kInFlight * kWarp, pieces);
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) {
      if (i + j * kWarp < pieces) sum = DotPiece(v[j], shared_x[i + j * kWarp], sum);
    }
  }
  sum = WarpSum(sum);
  if (a.norm != nullptr) {
    float total = 0;
#pragma unroll
    for (int i = 0; i < kWarps; ++i) total += partial[i];
    sum *= rsqrtf(total / static_cast<float>(a.k) + a.eps);
  }

  if constexpr (kOutput == Output::kGateUp || kOutput == Output::kQkv) {
    if (lane == 0) result[warp] = sum;
    __syncthreads();
    const int64_t pair = int64_t{blockIdx.x} * (kWarps / 2) + threadIdx.x;
    if (threadIdx.x >= kWarps / 2 || pair >= a.n / 2) return;
    const float first = result[2 * threadIdx.x], second = result[2 * threadIdx.x + 1];
    if constexpr (kOutput == Output::kGateUp) {
      StoreGateUp(a, expert, r, pair, first, second);
    } else {
      StoreQkv(a, pair, first, second);
    }
  } else {
    if (lane == 0 && row >= 0) StoreResult<kOutput>(a, expert, r, row, sum);
  }
}

template <Output kOutput, int kWarps>
OpError Run(const MatmulArgs& a, const LaunchContext& context) {
  const size_t shared = a.k * sizeof(Bf16);
  SWITCHYARD_RETURN_IF_OP_ERROR(AllowShared(Gemv<kOutput, kWarps>, shared));
  const dim3 grid(static_cast<unsigned>((a.n + kWarps - 1) / kWarps), a.rows);
  return Launch(context, grid, kWarps * kWarp, shared, Gemv<kOutput, kWarps>, a);
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
      return Run<Output::kQkv, kWarps>(a, context);
  }
  return {"no such output"};
}

}  // namespace

OpError GemvMatmul(const MatmulArgs& a, int warps, const LaunchContext& context) {
  return warps == 8 ? Run<8>(a, context) : Run<16>(a, context);
}

}  // namespace switchyard::kernels::cuda
