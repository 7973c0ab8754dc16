// out = activation(Wg norm(x), Wu norm(x)). One row: one kernel, the norm folded in. More: the norm
// first, then one product whose results meet their partner before they are stored; in chunks of
// rows, so that the normed copy stays small.

#include <algorithm>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.cuh"

namespace switchyard::kernels::cuda {

OpError CudaOps::MlpInput(const MlpInputArgs& args, Scratch scratch, Stream stream) {
  const LaunchContext context = Context(stream);
  const int64_t hidden = args.gate_up.k, width = args.gate_up.n / 2;
  MatmulArgs a;
  a.x = static_cast<const Bf16*>(args.x);
  a.rows = args.rows;
  SetWeights(a, args.gate_up);
  a.bias = args.bias;
  a.output = Output::kGateUp;
  a.activation = args.activation;
  a.out = args.out;
  if (args.norm == nullptr) return Product(a, context);
  if (TakesNorm(a)) {
    a.norm = args.norm;
    a.eps = args.eps;
    return Product(a, context);
  }
  ScratchCutter cut(scratch);
  NormScratch s;
  s.Take(cut, std::min(args.rows, kRowChunk), hidden);
  if (!cut.ok()) return kScratchTooSmall;
  for (int32_t first = 0; first < args.rows; first += kRowChunk) {
    a.rows = std::min(kRowChunk, args.rows - first);
    SWITCHYARD_RETURN_IF_OP_ERROR(NormRows(static_cast<const Bf16*>(args.x) + first * hidden,
                                           nullptr, args.norm, args.eps, a.rows, hidden, s.normed,
                                           context));
    a.x = s.normed;
    a.out = static_cast<Bf16*>(args.out) + first * width;
    SWITCHYARD_RETURN_IF_OP_ERROR(Product(a, context));
  }
  return {};
}

}  // namespace switchyard::kernels::cuda
