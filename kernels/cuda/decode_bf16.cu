// The decode product of decode_matmul.cuh for one weight format; a file each, so that they
// compile side by side.

#include "kernels/cuda/decode_matmul.cuh"

namespace switchyard::kernels::cuda {

OpError DecodeBf16Matmul(const MatmulArgs& a, const LaunchContext& context) {
  return RunDecode<Bf16Format>(a, context);
}

}  // namespace switchyard::kernels::cuda
