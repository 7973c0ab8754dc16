// out = activation(Wg norm(x), Wu norm(x)). The norm runs over rows first. Then each thread owns a
// range of the intermediate columns: their gate rows, their up rows, and the activation of both, so
// that there is no barrier between product and activation.

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/vectors.h"

namespace switchyard::kernels {

OpError CpuOps::MlpInput(const MlpInputArgs& args, Scratch scratch, Stream stream) {
  if (OpError error = CheckMatrix(args.gate_up); !error.ok()) return error;
  const int64_t hidden = args.gate_up.k, intermediate = args.gate_up.n / 2, rows = args.rows;
  ScratchCutter cut(scratch);
  float* matmul = TakeMatmulScratch(cut);
  float* normed = cut.Take<float>(rows * hidden);
  float* up = cut.Take<float>(rows * intermediate);
  if (!cut.ok()) return kScratchTooSmall;

  const float* x = static_cast<const float*>(args.x);
  if (args.norm != nullptr) {
    NormRows(x, nullptr, args.norm, args.eps, rows, hidden, normed);
    x = normed;
  }
  const MatmulInput in = {x, hidden, nullptr, rows};
  float* out = static_cast<float*>(args.out);
  const MatmulOutput gates = {out, intermediate, 0, args.bias, false};
  const MatmulOutput ups = {up, intermediate, intermediate, args.bias, false};
  pool_.ParallelFor(
      intermediate, MatmulGrain(2 * rows, hidden), [&](int thread, int64_t begin, int64_t end) {
        float* own = OfThread(matmul, thread);
        MatmulColumns(in, args.gate_up, 0, begin, end, gates, own);
        MatmulColumns(in, args.gate_up, 0, intermediate + begin, intermediate + end, ups, own);
        for (int64_t r = 0; r < rows; ++r) {
          const int64_t at = r * intermediate + begin;
          Activate(args.activation, out + at, up + at, end - begin);
        }
      });
  return {};
}

}  // namespace switchyard::kernels
