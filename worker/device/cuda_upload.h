#pragma once

// Copies to the device that its own threads make: a step's inputs, and some of the weights.

#include <cuda_runtime.h>

#include <cstdint>

namespace switchyard::worker {

// Of a step's inputs, at most.
constexpr uint64_t kFewBytes = uint64_t{1} << 20;

// At least one byte, from registered host memory, in the order of the stream, read by a kernel. The
// copy engine gives way to nobody while it has weights to copy, this model's or another's: what a
// step needs would come behind the last of them. And it is half as fast, or a quarter, while the
// driver clears memory with it. By threads many bytes come at 51 GB/s on an H200 whose copy engine
// makes 55. What comes next in the stream must not begin before this has ended (programmatic
// launch), since it may have read the old bytes into a first-level cache.
cudaError_t CopyByThreads(void* device, const void* host, uint64_t bytes, cudaStream_t stream);

}  // namespace switchyard::worker
