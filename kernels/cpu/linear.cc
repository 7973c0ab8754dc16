// out = W x + bias, or out += that. Parallel over the columns of the output; see matmul.cc.

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/matmul.h"

namespace switchyard::kernels {

OpError CpuOps::Linear(const LinearArgs& args, Scratch scratch, Stream stream) {
  if (OpError error = CheckMatrix(args.w); !error.ok()) return error;
  ScratchCutter cut(scratch);
  float* matmul = TakeMatmulScratch(cut);
  if (!cut.ok()) return kScratchTooSmall;
  const MatmulInput x = {static_cast<const float*>(args.x), args.w.k, nullptr, args.rows};
  const MatmulOutput y = {static_cast<float*>(args.out), args.w.n, 0, args.bias, args.accumulate};
  pool_.ParallelFor(args.w.n, MatmulGrain(args.rows, args.w.k),
                    [&](int thread, int64_t begin, int64_t end) {
                      MatmulColumns(x, args.w, 0, begin, end, y, OfThread(matmul, thread));
                    });
  return {};
}

}  // namespace switchyard::kernels
