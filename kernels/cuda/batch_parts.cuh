#pragma once

// Products of a batch whose k is cut among blocks: how it is cut, and how the parts become results.
// A block's tile has 128 weight rows; of gate and up, and of rotated pairs, eight of the one and
// eight of the other in turns.

#include "kernels/cuda/matmul_output.cuh"

namespace switchyard::kernels::cuda {

constexpr int kBatchN = 128;

struct BatchParts {
  int tiles = 0, splits = 1;
  int steps_each = 0;     // of a part of k
  float* data = nullptr;  // [splits][tiles][m][kBatchN], or null: k is not cut
};

template <class Run>
OpError ForBatchOutput(Output output, const Run& run) {
  return ForOutput<Output::kBf16, Output::kF32, Output::kGateUp, Output::kQkv>(output, run);
}

// m: rows of x that a block is made for; `steps` of k, of which a part has `least` or more.
BatchParts PlanParts(const MatmulArgs& a, int m, int steps, int least, int multiprocessors);
// Adds the parts up, in their order, and stores the results as a.output says.
OpError AddParts(const MatmulArgs& a, int m, const BatchParts& parts, const LaunchContext& context);

// Columns 2c and 2c + 1 of what a tile makes of row r: the results of two weight rows, or of two
// of gate and two of up.
template <Output kOutput, int kN>
__device__ inline void StorePair(const MatmulArgs& a, int64_t tile, int64_t r, int column,
                                 float2 first, float2 up) {
  if constexpr (kOutput == Output::kGateUp) {
    const int64_t width = a.n / 2, n = tile * (kN / 2) + column;
    if (width % 2 == 0 && n < width) {
      *reinterpret_cast<uint32_t*>(static_cast<Bf16*>(a.out) + r * width + n) =
          Pack(GateUp(a, 0, n, first.x, up.x), GateUp(a, 0, n + 1, first.y, up.y));
      return;
    }
    if (n < width) StoreGateUp(a, 0, r, n, first.x, up.x);
    if (n + 1 < width) StoreGateUp(a, 0, r, n + 1, first.y, up.y);
  } else {
    const int64_t n = tile * kN + column;
    if (n < a.n) StoreTwo<kOutput>(a, 0, r, n, first.x, first.y);
  }
}

}  // namespace switchyard::kernels::cuda
