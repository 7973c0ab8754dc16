#pragma once

// bf16 and fp8 products of many rows by cuBLASLt, where the machine has the library. It is opened
// when the ops are made, touches no device before the first product, and is never linked, so that
// one binary runs with and without it; without it the tiled kernel takes these products. Host code
// only.
//
// How a shape is computed is asked once (the library's first choice, without reductions by atomic
// additions, so that the same inputs give the same bits) and kept. Shapes of up to 64 rows more
// share a choice.

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>

#include "kernels/ops.h"

namespace switchyard::kernels::cuda {

// out[rows][n] = x[rows][k] times w[n][k] transposed, plus what is there if `accumulate`.
struct CublasProduct {
  const void* x = nullptr;  // bf16, or e4m3 if `fp8`
  const void* w = nullptr;  // likewise
  bool fp8 = false;
  int64_t rows = 0, n = 0, k = 0;
  bool accumulate = false;
  bool f32 = false;             // out is f32, else bf16
  const float* bias = nullptr;  // [n], with f32 only
  void* out = nullptr;
  int64_t out_stride = 0;  // elements from row to row of out; 0: n
  void* workspace = nullptr;
  int64_t workspace_bytes = 0;
};

class CublasLt {
 public:
  // What the library asks for on Hopper; enough everywhere.
  static constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;

  // Null where there is no library, or where it cannot start.
  static std::unique_ptr<CublasLt> Open();
  virtual ~CublasLt() = default;

  virtual const char* version() const = 0;
  // Whether Multiply takes it: alignment, and that the library has an algorithm.
  virtual bool Takes(const CublasProduct& product) = 0;
  virtual OpError Multiply(const CublasProduct& product, cudaStream_t stream) = 0;
};

}  // namespace switchyard::kernels::cuda
