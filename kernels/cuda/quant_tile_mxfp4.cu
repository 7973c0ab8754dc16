// The tiled product of quant_tile.cuh for one weight format.

#include "kernels/cuda/quant_tile.cuh"

namespace switchyard::kernels::cuda {

OpError TiledMxfp4Matmul(const MatmulArgs& a, const LaunchContext& context) {
  return RunQuantTile<Mxfp4Tile>(a, context);
}

}  // namespace switchyard::kernels::cuda
