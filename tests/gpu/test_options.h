#pragma once

// Which kernels the tests of a GPU run.

#include <cstdlib>

#include "kernels/ops.h"

namespace switchyard::kernels {

// With SWITCHYARD_TEST_CAPABILITY set (80, 86, 89, 120), the variants of that compute capability,
// on whatever GPU is there. MakeCudaOps refuses it if this one cannot run them.
inline CudaOptions TestOptions() {
  CudaOptions options;
  if (const char* asked = std::getenv("SWITCHYARD_TEST_CAPABILITY")) {
    options.capability = std::atoi(asked);
  }
  return options;
}

}  // namespace switchyard::kernels
