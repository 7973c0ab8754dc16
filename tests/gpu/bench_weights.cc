#include "tests/gpu/bench_weights.h"

#include "tests/gpu/bench_read.h"

namespace switchyard::bench {

using kernels::DType;
using kernels::Matrix;

namespace {

constexpr float kReach = 0.03f;  // about the spread that weights have

int64_t ScaleCount(const Matrix& m) {
  if (m.dtype != DType::kF8E4M3) return m.group == 0 ? 0 : m.batch * m.n * (m.k / m.group);
  return m.batch * (m.group == 0 ? m.n : (m.n + 127) / 128 * ((m.k + 127) / 128));
}

int64_t ScaleBytes(const Matrix& m) {
  const int64_t each = m.dtype == DType::kF8E4M3 ? 4 : m.dtype == DType::kInt4 ? 2 : 1;
  return each * ScaleCount(m);
}

Matrix WithoutData(const WeightFormat& format, int64_t n, int64_t k, int64_t batch) {
  Matrix m = {nullptr, format.dtype, n, k, batch};
  m.group = format.group;
  while (m.dtype == DType::kInt4 && m.group > 32 && k % m.group != 0) m.group /= 2;
  return m;
}

}  // namespace

int64_t MatrixBytes(const Matrix& m) {
  const int64_t zeros = m.zeros != nullptr ? ScaleCount(m) : 0;
  return kernels::DTypeBytes(m.dtype, m.n * m.k * m.batch) + ScaleBytes(m) + zeros;
}

int64_t MatrixBytes(const WeightFormat& format, int64_t n, int64_t k, int64_t batch) {
  const Matrix m = WithoutData(format, n, k, batch);
  return MatrixBytes(m) + (format.zeros ? ScaleCount(m) : 0);
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

Matrix WeightPool::Take(const WeightFormat& format, int64_t n, int64_t k, int64_t batch) {
  Matrix m = WithoutData(format, n, k, batch);
  const int64_t bytes = kernels::DTypeBytes(m.dtype, n * k * batch);
  void* data = Allocate(bytes);
  const uint32_t seed = static_cast<uint32_t>(owned_.size());
  if (m.dtype == DType::kF32) {
    FillFloats(data, bytes / 4, 0, kReach, seed, stream_);
  } else if (m.dtype == DType::kBF16) {
    FillRandom(data, bytes / 2, kReach, seed, stream_);
  } else {
    // Of e4m3 without the lowest bit of the exponent: else some would be no numbers, and from the
    // first product on nothing would be one.
    FillBits(data, bytes, seed, stream_, m.dtype == DType::kF8E4M3 ? 0xf7f7f7f7u : ~0u);
  }
  m.data = data;
  if (const int64_t scales = ScaleBytes(m); scales > 0) {
    // Small numbers of each type: f32 1.5e-4, f16 3e-3, e8m0 2^-8.
    const int fill = m.dtype == DType::kF8E4M3 ? 0x39 : m.dtype == DType::kInt4 ? 0x1a : 119;
    void* to = Allocate(scales);
    Check(cudaMemsetAsync(to, fill, scales, stream_), "scales");
    m.scales = to;
  }
  if (format.zeros) {
    void* to = Allocate(ScaleCount(m));
    Check(cudaMemsetAsync(to, 8, ScaleCount(m), stream_), "zeros");
    m.zeros = to;
  }
  return m;
}

const float* WeightPool::TakeVector(int64_t count, float middle, float reach) {
  float* data = static_cast<float*>(Allocate(count * static_cast<int64_t>(sizeof(float))));
  FillFloats(data, count, middle, reach, static_cast<uint32_t>(owned_.size()), stream_);
  return data;
}

}  // namespace switchyard::bench
