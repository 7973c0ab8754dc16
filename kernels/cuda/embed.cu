// out[t] = scale * table[token of row t]; zeros for padding. A block a row. Bound by latency.

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/load_weight.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__global__ __launch_bounds__(kThreads) void EmbedRows(const EmbedArgs a) {
  GridTrigger();
  GridWait();
  const int64_t row = blockIdx.x, width = a.table.k, slot = a.rows.slot[row];
  Bf16* out = static_cast<Bf16*>(a.out) + row * width;
  const int64_t id = slot < 0 ? 0 : a.tokens.ids[slot * a.tokens.stride + a.rows.position[row]];
  for (int64_t i = threadIdx.x; i < width; i += kThreads) {
    const float value = slot < 0 ? 0 : a.scale * LoadWeight(a.table, 0, id, i);
    out[i] = __float2bfloat16_rn(value);
  }
}

}  // namespace

OpError CudaOps::Embed(const EmbedArgs& args, Scratch scratch, Stream stream) {
  SWITCHYARD_RETURN_IF_OP_ERROR(CheckWeights(args.table));
  // The first of a step: what it reads may just have been copied by a kernel, which all others of
  // the step then need not wait for.
  LaunchContext context = Context(stream);
  context.programmatic = false;
  return Launch(context, args.rows.rows, kThreads, 0, EmbedRows, args);
}

}  // namespace switchyard::kernels::cuda
