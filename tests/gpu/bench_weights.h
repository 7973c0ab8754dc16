#pragma once

// Random weights of every format for the benchmark, made on the device.

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "kernels/ops.h"

namespace switchyard::bench {

struct WeightFormat {
  const char* name;
  kernels::DType dtype;
  int32_t group = 0;
  bool zeros = false;
};
inline constexpr WeightFormat kF32Weights = {"f32", kernels::DType::kF32};
inline constexpr WeightFormat kBf16Weights = {"bf16", kernels::DType::kBF16};
inline constexpr WeightFormat kFp8Weights = {"fp8, row scales", kernels::DType::kF8E4M3, 0};
inline constexpr WeightFormat kFp8BlockWeights = {"fp8, blocks of 128", kernels::DType::kF8E4M3,
                                                  128};
inline constexpr WeightFormat kInt4Weights = {"int4, groups of 128", kernels::DType::kInt4, 128};
inline constexpr WeightFormat kInt4ZeroWeights = {"int4, groups of 128 with zeros",
                                                  kernels::DType::kInt4, 128, true};
inline constexpr WeightFormat kMxfp4Weights = {"mxfp4", kernels::DType::kMxfp4, 32};

// Data, scales and zeros: what a step must read of it.
int64_t MatrixBytes(const kernels::Matrix& m);

// The same of a matrix that is not there yet.
int64_t MatrixBytes(const WeightFormat& format, int64_t n, int64_t k, int64_t batch = 1);

class WeightPool {
 public:
  explicit WeightPool(cudaStream_t stream) : stream_(stream) {}
  WeightPool(const WeightPool&) = delete;
  WeightPool& operator=(const WeightPool&) = delete;
  ~WeightPool();

  // Groups of int4 are halved until they divide k, as they are where an image is quantized.
  kernels::Matrix Take(const WeightFormat& format, int64_t n, int64_t k, int64_t batch = 1);
  // Norms, biases: middle +- reach.
  const float* TakeVector(int64_t count, float middle, float reach);

 private:
  void* Allocate(int64_t bytes);

  cudaStream_t stream_;
  std::vector<void*> owned_;
};

}  // namespace switchyard::bench
