// logits = W norm(x[row]). Few rows: one kernel. More: the rows are gathered and normed first.

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.cuh"

namespace switchyard::kernels::cuda {

OpError CudaOps::Head(const HeadArgs& args, Scratch scratch, Stream stream) {
  const LaunchContext context = Context(stream);
  MatmulArgs a;
  a.x = static_cast<const Bf16*>(args.x);
  a.rows = args.count;
  SetWeights(a, args.w);
  a.output = Output::kF32;
  a.softcap = args.softcap;
  a.out = args.logits;
  if (args.norm != nullptr && TakesNorm(a, context)) {
    a.x_row = args.row;
    a.norm = args.norm;
    a.eps = args.eps;
    return Product(a, context);
  }
  ScratchCutter cut(scratch);
  NormScratch s;
  s.Take(cut, args.count, a.k);
  if (!cut.ok()) return kScratchTooSmall;
  SWITCHYARD_RETURN_IF_OP_ERROR(
      NormForProduct(a, args.x, args.row, args.norm, args.eps, s.normed, context));
  a.workspace = cut.Rest();
  return Product(a, context);
}

}  // namespace switchyard::kernels::cuda
