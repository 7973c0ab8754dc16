#include <cuda_bf16.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "tests/gpu/bench_read.h"

namespace switchyard::bench {

void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

double MedianSeconds(cudaStream_t stream, int runs, bool graph,
                     const std::function<void()>& launch) {
  cudaGraph_t captured = nullptr;
  cudaGraphExec_t executable = nullptr;
  if (graph) {
    launch();  // what is made once is not made in a capture
    Check(cudaStreamSynchronize(stream), "warm up");
    Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
    launch();
    Check(cudaStreamEndCapture(stream, &captured), "capture");
    Check(cudaGraphInstantiate(&executable, captured, 0), "instantiate");
  }
  const auto run = [&] {
    if (graph) {
      Check(cudaGraphLaunch(executable, stream), "launch");
    } else {
      launch();
    }
  };
  cudaEvent_t begin, end;
  Check(cudaEventCreate(&begin), "event");
  Check(cudaEventCreate(&end), "event");
  for (int i = 0; i < 2; ++i) run();
  std::vector<float> times;
  for (int i = 0; i < runs; ++i) {
    Check(cudaEventRecord(begin, stream), "event");
    run();
    Check(cudaEventRecord(end, stream), "event");
    Check(cudaEventSynchronize(end), "run");
    float milliseconds;
    Check(cudaEventElapsedTime(&milliseconds, begin, end), "event");
    times.push_back(milliseconds);
  }
  if (graph) {
    cudaGraphExecDestroy(executable);
    cudaGraphDestroy(captured);
  }
  std::nth_element(times.begin(), times.begin() + runs / 2, times.end());
  return times[runs / 2] * 1e-3;
}

namespace {

__device__ unsigned sink;

// A block reads kEach pieces of 16 bytes a thread, four or eight at a time, or strides over all.
template <int kInFlight>
__global__ void Read(const uint4* data, int64_t pieces, int each) {
  const int64_t block = int64_t{blockDim.x} * each;
  unsigned x = 0;
  for (int64_t at = blockIdx.x * block; at < pieces; at += gridDim.x * block) {
    for (int64_t i = at + threadIdx.x; i < min(pieces, at + block);
         i += int64_t{kInFlight} * blockDim.x) {
      uint4 v[kInFlight];
#pragma unroll
      for (int j = 0; j < kInFlight; ++j) {
        const int64_t k = i + int64_t{j} * blockDim.x;
        v[j] = k < pieces ? __ldcs(data + k) : make_uint4(0, 0, 0, 0);
      }
#pragma unroll
      for (int j = 0; j < kInFlight; ++j) x ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
    }
  }
  if (x == 0x12345679) sink = x;
}

__device__ uint64_t Mix(uint64_t i, uint32_t seed) {
  uint64_t x = (i + 1) * 0x9E3779B97F4A7C15ull + seed;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ull;
  return (x ^ x >> 27) * 0x94D049BB133111EBull;
}

__global__ void Bits(uint32_t* data, int64_t words, uint32_t seed, uint32_t mask) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < words;
       i += int64_t{gridDim.x} * blockDim.x) {
    data[i] = static_cast<uint32_t>(Mix(i, seed) >> 32) & mask;
  }
}

template <class T>
__global__ void Fill(T* data, int64_t count, float middle, float reach, uint32_t seed) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count;
       i += int64_t{gridDim.x} * blockDim.x) {
    const float unit = static_cast<float>((Mix(i, seed) >> 40) & 0xffffff) * 0x1p-23f - 1.0f;
    data[i] = static_cast<T>(middle + unit * reach);
  }
}

}  // namespace

double ReadLimit(cudaStream_t stream) {
  const int64_t bytes = int64_t{8} << 30, pieces = bytes / 16;
  void* data;
  Check(cudaMalloc(&data, bytes), "allocate");
  FillBits(data, bytes, 1, stream);
  const uint4* from = static_cast<const uint4*>(data);
  double best = 0;
  for (const int threads : {256, 512}) {
    for (const int each : {4, 8, 16, 32}) {
      for (const int in_flight : {4, 8}) {
        if (each < in_flight) continue;
        const int64_t block = int64_t{threads} * each;
        const unsigned grid = static_cast<unsigned>((pieces + block - 1) / block);
        const double seconds = MedianSeconds(stream, 5, false, [&] {
          if (in_flight == 4) {
            Read<4><<<grid, threads, 0, stream>>>(from, pieces, each);
          } else {
            Read<8><<<grid, threads, 0, stream>>>(from, pieces, each);
          }
        });
        Check(cudaGetLastError(), "read");
        best = std::max(best, bytes / seconds);
      }
    }
  }
  cudaFree(data);
  return best;
}

void FillBits(void* data, int64_t bytes, uint32_t seed, cudaStream_t stream, uint32_t mask) {
  Bits<<<4096, 256, 0, stream>>>(static_cast<uint32_t*>(data), bytes / 4, seed, mask);
  Check(cudaGetLastError(), "fill");
}

void FillRandom(void* data, int64_t count, float reach, uint32_t seed, cudaStream_t stream) {
  Fill<<<4096, 256, 0, stream>>>(static_cast<__nv_bfloat16*>(data), count, 0.0f, reach, seed);
  Check(cudaGetLastError(), "fill");
}

void FillFloats(void* data, int64_t count, float middle, float reach, uint32_t seed,
                cudaStream_t stream) {
  Fill<<<4096, 256, 0, stream>>>(static_cast<float*>(data), count, middle, reach, seed);
  Check(cudaGetLastError(), "fill");
}

}  // namespace switchyard::bench
