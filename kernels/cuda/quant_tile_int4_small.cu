// The tiled product of quant_tile.cuh for one weight format.

#include "kernels/cuda/quant_tile.cuh"

namespace switchyard::kernels::cuda {

OpError TiledInt4SmallMatmul(const MatmulArgs& a, const LaunchContext& context) {
  return RunQuantTile<Int4Tile<4>>(a, context);
}

}  // namespace switchyard::kernels::cuda
