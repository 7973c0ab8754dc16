// The decode product of decode_matmul.cuh for one weight format; a file each, so that they
// compile side by side.

#include "kernels/cuda/decode_matmul.cuh"

namespace switchyard::kernels::cuda {

OpError DecodeInt4Matmul(const MatmulArgs& a, const LaunchContext& context) {
  return RunDecode<Int4Format>(a, context);
}

}  // namespace switchyard::kernels::cuda
