// The tiled product of quant_tile.cuh for one weight format.

#include "kernels/cuda/quant_tile.cuh"

namespace switchyard::kernels::cuda {

OpError TiledFp8Matmul(const MatmulArgs& a, const LaunchContext& context) {
  return RunQuantTile<Fp8Tile>(a, context);
}

}  // namespace switchyard::kernels::cuda
