#pragma once

// How kernels are launched: every launch is checked, and on capability 9.0 and later it may begin
// before the kernel in front of it has ended (programmatic dependent launch). Every kernel
// therefore calls GridWait() before it reads what another kernel wrote or writes anything, in every
// thread: then the kernel before has ended, and with it all kernels before that one. What the host
// has uploaded for a step (StepRows, block tables), weights, and what earlier steps wrote (KV of
// other positions than the step's) lies there before a step's first kernel begins, since copies and
// graphs do not overlap, nor does Embed, which is the first: it may be read before GridWait().

#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

#include "kernels/cuda/choose.h"
#include "kernels/ops.h"

namespace switchyard::kernels::cuda {

// Whether 16 bytes can be loaded at once.
inline bool Aligned(const void* data) { return reinterpret_cast<uintptr_t>(data) % 16 == 0; }

struct LaunchContext {
  cudaStream_t stream = nullptr;
  bool programmatic = false;
  int multiprocessors = 132;
  int capability = 90;     // whose variants run
  bool invariant = false;  // CudaOptions::batch_invariant
};

// The runtime keeps an error until it is asked for, and the next launch that looks would take it
// for its own.
inline OpError TakeError(cudaError_t error) {
  if (error == cudaSuccess) return {};
  (void)cudaGetLastError();
  return {cudaGetErrorString(error)};
}

template <class... Params, class... Args>
OpError Launch(const LaunchContext& context, dim3 grid, dim3 block, size_t shared_bytes,
               void (*kernel)(Params...), Args&&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return {};
  // Also where the GPU has more than the one whose variants run.
  if (shared_bytes > static_cast<size_t>(SharedLimit(context.capability))) {
    return {"a kernel asks for more shared memory than a block of this compute capability has"};
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = context.stream;
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = context.programmatic ? 1 : 0;
  cudaError_t error = cudaLaunchKernelEx(&config, kernel, Params(std::forward<Args>(args))...);
  if (error == cudaSuccess) error = cudaGetLastError();
  return TakeError(error);
}

// Once per kernel that takes more than 48 KiB; not a stream operation, so capture allows it.
template <class Kernel>
OpError AllowShared(Kernel* kernel, size_t bytes) {
  if (bytes <= 48 * 1024) return {};
  return TakeError(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        static_cast<int>(bytes)));
}

}  // namespace switchyard::kernels::cuda

#define SWITCHYARD_RETURN_IF_OP_ERROR(expression)                         \
  do {                                                                    \
    if (OpError op_error = (expression); !op_error.ok()) return op_error; \
  } while (false)
