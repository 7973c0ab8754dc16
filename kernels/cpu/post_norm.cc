// residual += norm(x). Parallel over rows; two passes over a row that is in cache.

#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/vectors.h"

namespace switchyard::kernels {

OpError CpuOps::PostNormAdd(const PostNormAddArgs& args, Scratch scratch, Stream stream) {
  const int64_t width = args.width;
  const float* x = static_cast<const float*>(args.x);
  float* residual = static_cast<float*>(args.residual);
  pool_.ParallelFor(args.rows, 16384 / width + 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      RmsNormAdd(x + r * width, args.norm, args.eps, width, residual + r * width);
    }
  });
  return {};
}

}  // namespace switchyard::kernels
