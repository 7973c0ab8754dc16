#pragma once

// The device's read limit and memory for the benchmark.

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>

namespace switchyard::bench {

// Ends the program with the place and the reason.
void Check(cudaError_t error, const char* what);

// Seconds of one run of `launch` at the median of `runs`, after two to warm up. With `graph` the
// launches are captured once and replayed.
double MedianSeconds(cudaStream_t stream, int runs, bool graph,
                     const std::function<void()>& launch);

// Bytes a second of the best of several kernels that only read 8 GiB.
double ReadLimit(cudaStream_t stream);

// Random bf16 of about the spread that weights have (uniform, +-2 / sqrt(4096)).
void FillRandom(void* data, int64_t count, float reach, uint32_t seed, cudaStream_t stream);
// Random float32, uniform: middle +- reach.
void FillFloats(void* data, int64_t count, float middle, float reach, uint32_t seed,
                cudaStream_t stream);
// Random bits, where the word `mask` has ones.
void FillBits(void* data, int64_t bytes, uint32_t seed, cudaStream_t stream, uint32_t mask = ~0u);

}  // namespace switchyard::bench
