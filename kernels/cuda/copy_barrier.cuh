#pragma once

// Barriers in shared memory that count asynchronous copies (PTX ISA, "mbarrier" and
// "cp.async.mbarrier.arrive").

#include "kernels/cuda/shared_memory.cuh"

namespace switchyard::kernels::cuda {

// An mbarrier, by its address in shared memory.
struct CopyBarrier {
  uint32_t at;

  __device__ explicit CopyBarrier(uint32_t address) : at(address) {}
  __device__ explicit CopyBarrier(const uint64_t& barrier) : at(SharedAddress(&barrier)) {}

  __device__ void Init(int arrivals) const {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(at), "r"(arrivals) : "memory");
  }
  __device__ void Arrive() const {
    asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(at)
                 : "memory");
  }
  // Arrives when the thread's asynchronous copies until now are there.
  __device__ void ArriveWhenCopied() const {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(at) : "memory");
  }
  // Whether the phase of that parity has ended.
  __device__ bool HasEnded(uint32_t parity) const {
    uint32_t ended;
    asm volatile(
        "{ .reg .pred ended; mbarrier.test_wait.parity.shared.b64 ended, [%1], %2; "
        "selp.u32 %0, 1, 0, ended; }"
        : "=r"(ended)
        : "r"(at), "r"(parity)
        : "memory");
    return ended != 0;
  }
  // Returns when it has.
  __device__ void Wait(uint32_t parity) const {
#if __CUDA_ARCH__ >= 900
    uint32_t done;
    do {
      asm volatile(
          "{ .reg .pred ended; mbarrier.try_wait.parity.shared::cta.b64 ended, [%1], %2; "
          "selp.u32 %0, 1, 0, ended; }"
          : "=r"(done)
          : "r"(at), "r"(parity)
          : "memory");
    } while (done == 0);
#else
    while (!HasEnded(parity)) {
    }
#endif
  }
};

// 16 bytes, past the first-level cache.
__device__ inline void CopyPiece(uint32_t shared, const void* global) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(shared), "l"(global)
               : "memory");
}

}  // namespace switchyard::kernels::cuda
