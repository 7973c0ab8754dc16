// The streamed product of stream_matmul.cuh for one weight format; a file each, so that they
// compile side by side.

#include "kernels/cuda/stream_matmul.cuh"

namespace switchyard::kernels::cuda {

OpError StreamFp8Matmul(const MatmulArgs& a, const LaunchContext& context) {
  return RunStream<Fp8Format>(a, context);
}

}  // namespace switchyard::kernels::cuda
