// out = activation(Wg norm(x), Wu norm(x)). Few rows: one kernel, the norm folded in. More: the
// norm first, then one product whose results meet their partner before they are stored; or
// cuBLASLt's, which stores them all, and the activation of that. In chunks of rows, so that what
// lies in between stays small.

#include <algorithm>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.cuh"

namespace switchyard::kernels::cuda {
namespace {

// Gate and up of rows as cuBLASLt is to make them.
MatmulArgs BothHalves(const MatmulArgs& a, Bf16* gate_up) {
  MatmulArgs both = a;
  both.bias = nullptr;
  both.output = Output::kBf16;
  both.out = gate_up;
  return both;
}

}  // namespace

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
  if (args.norm != nullptr && TakesNorm(a, context)) {
    a.norm = args.norm;
    a.eps = args.eps;
    return Product(a, context);
  }
  ScratchCutter cut(scratch);
  NormScratch s;
  const int32_t chunk = RowsAtOnce(args.rows, args.gate_up, kDenseChunk);
  if (args.norm != nullptr) s.Take(cut, chunk, hidden);
  if (!cut.ok()) return kScratchTooSmall;
  Bf16* gate_up = nullptr;
  static_assert(kCublasGateUpRows == kDequantizedRows);
  if (cublas_ != nullptr && chunk > kCublasGateUpRows && width % 8 == 0) {
    gate_up = cut.TakeIfRoom<Bf16>(chunk * a.n);
  }
  a.workspace = cut.Rest();
  for (int32_t first = 0; first < args.rows; first += chunk) {
    a.rows = std::min(chunk, args.rows - first);
    a.x = static_cast<const Bf16*>(args.x) + first * hidden;
    if (args.norm != nullptr) {
      SWITCHYARD_RETURN_IF_OP_ERROR(
          NormForProduct(a, a.x, nullptr, args.norm, args.eps, s.normed, context));
    }
    a.out = static_cast<Bf16*>(args.out) + first * width;
    const MatmulArgs both = BothHalves(a, gate_up);
    if (gate_up != nullptr && CublasTakes(both)) {
      SWITCHYARD_RETURN_IF_OP_ERROR(Product(both, context));
      SWITCHYARD_RETURN_IF_OP_ERROR(ActivateRows(a, gate_up, context));
    } else {
      SWITCHYARD_RETURN_IF_OP_ERROR(Product(a, context));
    }
  }
  return {};
}

}  // namespace switchyard::kernels::cuda
