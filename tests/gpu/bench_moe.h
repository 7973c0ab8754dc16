#pragma once

// Experts of a mixture: the op on its own, of real shapes, beside the read limit.

#include <cuda_runtime.h>

namespace switchyard::bench {

void Experts(double read_limit, cudaStream_t stream);

}  // namespace switchyard::bench
