// out[t] = scale * table[token of row t]. One row of the table a row; parallel over rows. Bound by
// the latency of the row's first read: a few kilobytes of a step's gigabytes.

#include <algorithm>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/vectors.h"

namespace switchyard::kernels {

OpError CpuOps::Embed(const EmbedArgs& args, Scratch scratch, Stream stream) {
  if (OpError error = CheckMatrix(args.table); !error.ok()) return error;
  const int64_t width = args.table.k;
  float* out = static_cast<float*>(args.out);
  pool_.ParallelFor(args.rows.rows, 16384 / width + 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t slot = args.rows.slot[t];
      float* row = out + t * width;
      if (slot < 0) {
        std::fill_n(row, width, 0.0f);
        continue;
      }
      const int32_t id = args.tokens.ids[slot * args.tokens.stride + args.rows.position[t]];
      MatrixRow(args.table, 0, id, row);
      if (args.scale != 1.0f) Scale(args.scale, width, row);
    }
  });
  return {};
}

}  // namespace switchyard::kernels
