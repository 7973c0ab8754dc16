// out = W x + bias, or out += that. One product: see matmul.h for the variants and their limits.
// cuBLASLt adds a float bias to float results only, so a biased product goes through those.

#include <algorithm>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.cuh"

namespace switchyard::kernels::cuda {

OpError CudaOps::Linear(const LinearArgs& args, Scratch scratch, Stream stream) {
  const LaunchContext context = Context(stream);
  MatmulArgs a;
  a.x = static_cast<const Bf16*>(args.x);
  a.rows = args.rows;
  SetWeights(a, args.w);
  a.bias = args.bias;
  ScratchCutter cut(scratch);
  if (args.bias != nullptr && args.w.n % 8 == 0) {
    MatmulArgs sums = a;
    sums.output = Output::kF32;
    const int32_t chunk = RowsAtOnce(args.rows, args.w, kDenseChunk);
    sums.rows = chunk;
    float* results = cut.TakeIfRoom<float>(sums.rows * a.n);
    sums.out = results;
    sums.workspace = cut.Rest();
    if (results != nullptr && CublasTakes(sums)) {
      for (int32_t first = 0; first < args.rows; first += chunk) {
        sums.rows = std::min(chunk, args.rows - first);
        sums.x = a.x + first * a.k;
        SWITCHYARD_RETURN_IF_OP_ERROR(Product(sums, context));
        SWITCHYARD_RETURN_IF_OP_ERROR(StoreSums(results, sums.rows * a.n, args.accumulate,
                                                static_cast<Bf16*>(args.out) + first * a.n,
                                                context));
      }
      return {};
    }
  }
  a.accumulate = args.accumulate;
  a.workspace = scratch;
  const int32_t chunk = RowsAtOnce(args.rows, args.w, args.rows);
  for (int32_t first = 0; first < args.rows; first += chunk) {
    a.rows = std::min(chunk, args.rows - first);
    a.x = static_cast<const Bf16*>(args.x) + first * a.k;
    a.out = static_cast<Bf16*>(args.out) + first * a.n;
    SWITCHYARD_RETURN_IF_OP_ERROR(Product(a, context));
  }
  return {};
}

}  // namespace switchyard::kernels::cuda
