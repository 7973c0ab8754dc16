// The streamed product of stream_matmul.cuh for one weight format; a file each, so that they
// compile side by side.

#include "kernels/cuda/stream_matmul.cuh"

namespace switchyard::kernels::cuda {

OpError StreamMxfp4Matmul(const MatmulArgs& a, const LaunchContext& context) {
  return RunStream<StreamMxfp4Row>(a, context);
}

}  // namespace switchyard::kernels::cuda
