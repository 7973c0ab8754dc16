// out = W x + bias, or out += that. One product: see matmul.h for the variants and their limits.

#include "kernels/cuda/cuda_ops.h"

namespace switchyard::kernels::cuda {

OpError CudaOps::Linear(const LinearArgs& args, Scratch scratch, Stream stream) {
  MatmulArgs a;
  a.x = static_cast<const __nv_bfloat16*>(args.x);
  a.rows = args.rows;
  SetWeights(a, args.w);
  a.bias = args.bias;
  a.accumulate = args.accumulate;
  a.out = args.out;
  return Product(a, Context(stream));
}

}  // namespace switchyard::kernels::cuda
