// Product of bf16 weights with 2 to 32 rows: decode of a small batch.
//
// The weights are the left operand of mma.m16n8k16, straight from memory: which k a tensor core
// multiplies first does not matter, so a lane takes eight neighbouring k of its two weight rows in
// one 16-byte load each, and the same eight k of its row of x. A block has 16 weight rows (of gate
// and up: 16 each) and eight warps that divide k and add up in shared memory. x comes from the
// first-level cache. Eight loads are in flight; the first go out before the kernel in front ends.

#include "kernels/cuda/matmul_output.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kUnroll = 2;  // pieces of 32 k a step; two steps are in flight
constexpr int kPieceK = 32;

struct WeightPiece {
  uint4 low, high;  // weight rows g and g + 8
};

template <Output kOutput, int kColumns>  // kColumns tiles of eight rows of x
__global__ __launch_bounds__(kWarps* kWarp, kColumns < 4 ? 3 : 2) void Skinny(const MatmulArgs a) {
  constexpr bool kGated = kOutput == Output::kGateUp;
  constexpr int kParts = kGated ? kWarps / 2 : kWarps;  // warps that share k
  constexpr int kRows = kColumns * 8;
  __shared__ float partial[kWarps][16][kRows + 1];
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int g = lane / 4, t = lane % 4;
  const int part = warp % kParts;
  const int64_t width = kGated ? a.n / 2 : a.n;  // results a row
  const int64_t first = int64_t{blockIdx.x} * 16;
  const int64_t base = first + (kGated && warp >= kParts ? width : 0);
  const Bf16* w = static_cast<const Bf16*>(a.w);
  const bool low_valid = first + g < width, high_valid = first + g + 8 < width;
  const Bf16* low = w + (low_valid ? base + g : 0) * a.k + t * 8;
  const Bf16* high = w + (high_valid ? base + g + 8 : 0) * a.k + t * 8;
  const int64_t end = a.k - t * 8;  // this lane's pieces begin below it

  const auto load = [&](WeightPiece(&v)[kUnroll], int64_t k) {
#pragma unroll
    for (int j = 0; j < kUnroll; ++j) {
      const int64_t at = k + j * kPieceK;
      v[j].low = v[j].high = make_uint4(0, 0, 0, 0);
      if (at < end && low_valid) v[j].low = LoadStream(reinterpret_cast<const uint4*>(low + at));
      if (at < end && high_valid) v[j].high = LoadStream(reinterpret_cast<const uint4*>(high + at));
    }
  };

  GridTrigger();
  WeightPiece v[kUnroll], next[kUnroll];
  const int64_t stride = kParts * kUnroll * kPieceK;
  int64_t k = part * kUnroll * kPieceK;
  load(v, k);
  load(next, k + stride);
  GridWait();

  const Bf16* x[kColumns];
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const int64_t r = c * 8 + g;
    x[c] = r < a.rows ? a.x + InputRow(a, r) * a.k + t * 8 : nullptr;
  }
  float sum[kColumns][4] = {};
  for (; k < a.k; k += stride) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      uint4 b[kUnroll];
#pragma unroll
      for (int j = 0; j < kUnroll; ++j) {
        const int64_t at = k + j * kPieceK;
        b[j] = make_uint4(0, 0, 0, 0);
        if (x[c] != nullptr && at < end) b[j] = *reinterpret_cast<const uint4*>(x[c] + at);
      }
#pragma unroll
      for (int j = 0; j < kUnroll; ++j) {
        MultiplyTile(sum[c], v[j].low.x, v[j].high.x, v[j].low.y, v[j].high.y, b[j].x, b[j].y);
        MultiplyTile(sum[c], v[j].low.z, v[j].high.z, v[j].low.w, v[j].high.w, b[j].z, b[j].w);
      }
    }
#pragma unroll
    for (int j = 0; j < kUnroll; ++j) v[j] = next[j];
    load(next, k + 2 * stride);
  }

#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
#pragma unroll
    for (int i = 0; i < 4; ++i) partial[warp][g + i / 2 * 8][c * 8 + 2 * t + i % 2] = sum[c][i];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 16 * kRows; i += blockDim.x) {
    const int n = i % 16, r = i / 16;
    if (r >= a.rows || first + n >= width) continue;
    float total = 0, up = 0;
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      total += partial[p][n][r];
      if constexpr (kGated) up += partial[kParts + p][n][r];
    }
    if constexpr (kGated) {
      StoreGateUp(a, 0, r, first + n, total, up);
    } else {
      StoreResult<kOutput>(a, 0, r, first + n, total);
    }
  }
}

template <Output kOutput>
OpError Run(const MatmulArgs& a, const LaunchContext& context) {
  const int64_t width = kOutput == Output::kGateUp ? a.n / 2 : a.n;
  const dim3 grid(static_cast<unsigned>((width + 15) / 16));
  const int threads = kWarps * kWarp;
  if (a.rows <= 8) return Launch(context, grid, threads, 0, Skinny<kOutput, 1>, a);
  if (a.rows <= 16) return Launch(context, grid, threads, 0, Skinny<kOutput, 2>, a);
  return Launch(context, grid, threads, 0, Skinny<kOutput, 4>, a);
}

}  // namespace

OpError SkinnyMatmul(const MatmulArgs& a, const LaunchContext& context) {
  switch (a.output) {
    case Output::kBf16:
      return Run<Output::kBf16>(a, context);
    case Output::kF32:
      return Run<Output::kF32>(a, context);
    case Output::kGateUp:
      return Run<Output::kGateUp>(a, context);
    case Output::kQkv:
      break;
  }
  return {"no such output of several rows"};
}

}  // namespace switchyard::kernels::cuda
