// The product of quant_batch.cuh for one weight format; a file each, so that they compile side by
// side.

#include "kernels/cuda/quant_batch.cuh"

namespace switchyard::kernels::cuda {

OpError QuantBatchInt4Matmul(const MatmulArgs& a, const LaunchContext& context) {
  return RunQuantBatch<Int4Format>(a, context);
}

}  // namespace switchyard::kernels::cuda
