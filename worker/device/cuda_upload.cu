#include "worker/device/cuda_upload.h"

namespace switchyard::worker {
namespace {

constexpr int kThreads = 512, kAtOnce = 4;
// With four pieces of 16 bytes a thread on their way they saturate the bus; what else runs keeps
// the other multiprocessors.
constexpr int kMostBlocks = 16;

template <class T>
__global__ __launch_bounds__(kThreads) void CopyEach(T* to, const T* from, uint64_t count) {
  const uint64_t stride = uint64_t{gridDim.x} * kThreads;
  for (uint64_t i = uint64_t{blockIdx.x} * kThreads + threadIdx.x; i < count;
       i += kAtOnce * stride) {
    T piece[kAtOnce];
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      // The host writes there again and again.
      if (i + k * stride < count) piece[k] = __ldcv(from + i + k * stride);
    }
#pragma unroll
    for (int k = 0; k < kAtOnce; ++k) {
      if (i + k * stride < count) to[i + k * stride] = piece[k];
    }
  }
}

template <class T>
bool Fits(const void* to, const void* from, uint64_t bytes) {
  const uint64_t all = reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from) | bytes;
  return all % sizeof(T) == 0;
}

template <class T>
cudaError_t Copy(void* to, const void* from, uint64_t bytes, cudaStream_t stream) {
  const uint64_t count = bytes / sizeof(T), blocks = (count + kThreads - 1) / kThreads;
  const auto grid = static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks);
  CopyEach<<<grid, kThreads, 0, stream>>>(static_cast<T*>(to), static_cast<const T*>(from), count);
  return cudaGetLastError();
}

}  // namespace

cudaError_t CopyByThreads(void* device, const void* host, uint64_t bytes, cudaStream_t stream) {
  void* from = nullptr;
  const cudaError_t error = cudaHostGetDevicePointer(&from, const_cast<void*>(host), 0);
  if (error != cudaSuccess) return error;
  if (Fits<uint4>(device, from, bytes)) return Copy<uint4>(device, from, bytes, stream);
  if (Fits<uint32_t>(device, from, bytes)) return Copy<uint32_t>(device, from, bytes, stream);
  return Copy<char>(device, from, bytes, stream);
}

}  // namespace switchyard::worker
