// logits = W norm(x[row]), soft-capped if asked. The norm over the R rows first, then threads own
// ranges of the vocabulary. At batch 1 this is the largest matrix of the step, read once.

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/vectors.h"

namespace switchyard::kernels {

OpError CpuOps::Head(const HeadArgs& args, Scratch scratch, Stream stream) {
  if (OpError error = CheckMatrix(args.w); !error.ok()) return error;
  const int64_t hidden = args.w.k, rows = args.count, vocabulary = args.w.n;
  ScratchCutter cut(scratch);
  float* matmul = TakeMatmulScratch(cut);
  float* normed = cut.Take<float>(rows * hidden);
  if (!cut.ok()) return kScratchTooSmall;

  NormRows(static_cast<const float*>(args.x), args.row, args.norm, args.eps, rows, hidden, normed);
  const MatmulInput in = {normed, hidden, nullptr, rows};
  const MatmulOutput out = {args.logits, vocabulary, 0, nullptr, false};
  pool_.ParallelFor(vocabulary, MatmulGrain(rows, hidden),
                    [&](int thread, int64_t begin, int64_t end) {
                      MatmulColumns(in, args.w, 0, begin, end, out, OfThread(matmul, thread));
                      if (args.softcap <= 0) return;
                      for (int64_t r = 0; r < rows; ++r) {
                        SoftCap(args.softcap, end - begin, args.logits + r * vocabulary + begin);
                      }
                    });
  return {};
}

}  // namespace switchyard::kernels
