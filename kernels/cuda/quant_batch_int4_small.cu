// The product of quant_batch.cuh for one weight format; a file each, so that they compile side by
// side.

#include "kernels/cuda/quant_batch.cuh"

namespace switchyard::kernels::cuda {
namespace {

struct PlainInt4SmallFormat : Int4SmallFormat {
  static constexpr bool kHasZeros = false;
};

}  // namespace

OpError QuantBatchInt4SmallMatmul(const MatmulArgs& a, const LaunchContext& context) {
  if (a.zeros == nullptr) return RunQuantBatch<PlainInt4SmallFormat>(a, context);
  return RunQuantBatch<Int4SmallFormat>(a, context);
}

}  // namespace switchyard::kernels::cuda
