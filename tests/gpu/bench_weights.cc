#include "tests/gpu/bench_weights.h"

#include "tests/gpu/bench_read.h"

namespace switchyard::bench {

using kernels::DType;
using kernels::Matrix;

namespace {

int64_t ScaleCount(const Matrix& m) {
  if (m.dtype != DType::kF8E4M3) return m.group == 0 ? 0 : m.batch * m.n * (m.k / m.group);
  return m.batch * (m.group == 0 ? m.n : (m.n + 127) / 128 * ((m.k + 127) / 128));
}

int64_t ScaleBytes(const Matrix& m) {
  const int64_t each = m.dtype == DType::kF8E4M3 ? 4 : m.dtype == DType::kInt4 ? 2 : 1;
  return each * ScaleCount(m);
}

}  // namespace

int64_t MatrixBytes(const Matrix& m) {
  const int64_t zeros = m.zeros != nullptr ? ScaleCount(m) : 0;
  return kernels::DTypeBytes(m.dtype, m.n * m.k * m.batch) + ScaleBytes(m) + zeros;
}

WeightPool::~WeightPool() {
  for (void* data : owned_) cudaFree(data);
}

void* WeightPool::Allocate(int64_t bytes) {
  void* data;
  Check(cudaMalloc(&data, (bytes + 255) / 256 * 256), "allocate");
  owned_.push_back(data);
  return data;
}

Matrix WeightPool::Take(int64_t n, int64_t k, int64_t batch) {
  Matrix m = {nullptr, format_.dtype, n, k, batch};
  m.group = format_.group;
  const int64_t bytes = kernels::DTypeBytes(m.dtype, n * k * batch);
  void* data = Allocate(bytes);
  const uint32_t seed = static_cast<uint32_t>(owned_.size());
  if (m.dtype == DType::kBF16) {
    FillRandom(data, bytes / 2, 0.03f, seed, stream_);
  } else {
    FillBits(data, bytes, seed, stream_);
  }
  m.data = data;
  if (const int64_t scales = ScaleBytes(m); scales > 0) {
    // Small numbers of each type: f32 1.5e-4, f16 3e-3, e8m0 2^-8.
    const int fill = m.dtype == DType::kF8E4M3 ? 0x39 : m.dtype == DType::kInt4 ? 0x1a : 119;
    void* to = Allocate(scales);
    Check(cudaMemsetAsync(to, fill, scales, stream_), "scales");
    m.scales = to;
  }
  if (format_.zeros) {
    void* to = Allocate(ScaleCount(m));
    Check(cudaMemsetAsync(to, 8, ScaleCount(m), stream_), "zeros");
    m.zeros = to;
  }
  return m;
}

}  // namespace switchyard::bench
