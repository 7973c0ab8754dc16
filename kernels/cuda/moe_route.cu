// normed = norm(x); the K experts of each row and their weights.
//
// Of few rows by one kernel (moe_few.cu). Else NormRows, a product of matmul.h to float, and a warp
// a row that chooses. Bound by latency.

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/moe_choose.cuh"

namespace switchyard::kernels::cuda {
namespace {

template <int kEach>
__global__ __launch_bounds__(kWarp) void Choose(const MoeRouteArgs a, const float* logits) {
  __shared__ ChoiceShared shared;
  GridTrigger();
  GridWait();
  const int64_t row = blockIdx.x;
  ChooseExperts<kEach>(a, row, logits + row * a.router.n, &shared);
}

OpError CheckRoute(const MoeRouteArgs& args) {
  const int64_t experts = args.router.n;
  if (experts > kMostExperts) return {"more experts than the CUDA kernels hold"};
  if (args.chosen < 1 || args.chosen > experts || args.chosen > kMostChosen) {
    return {"more experts chosen than there are"};
  }
  if (args.groups < 1 || experts % args.groups != 0 || args.best_groups < 1 ||
      args.best_groups > args.groups || args.chosen > experts / args.groups * args.best_groups) {
    return {"expert groups do not divide the experts, or hold fewer than are chosen"};
  }
  return {};
}

}  // namespace

OpError CudaOps::MoeRoute(const MoeRouteArgs& args, Scratch scratch, Stream stream) {
  SWITCHYARD_RETURN_IF_OP_ERROR(CheckRoute(args));
  const LaunchContext context = Context(stream);
  ScratchCutter cut(scratch);
  float* logits = cut.Take<float>(args.rows * args.router.n);
  if (!cut.ok()) return kScratchTooSmall;
  if (!context.invariant && TakesRouteFew(args)) {
    SWITCHYARD_RETURN_IF_OP_ERROR(RouteFew(args, logits, context));
    if (ChoosesItself(args)) return {};
  } else {
    SWITCHYARD_RETURN_IF_OP_ERROR(NormRows(args.x, nullptr, args.norm, args.eps, args.rows,
                                           args.router.k, args.normed, context));
    MatmulArgs a;
    a.x = static_cast<const Bf16*>(args.normed);
    a.rows = args.rows;
    SetWeights(a, args.router);
    a.bias = args.bias;
    a.output = Output::kF32;
    a.out = logits;
    a.workspace = cut.Rest();
    SWITCHYARD_RETURN_IF_OP_ERROR(Product(a, context));
  }
  auto choose = Choose<kMostExperts / kWarp>;
  if (args.router.n <= 4 * kWarp)
    choose = Choose<4>;
  else if (args.router.n <= 8 * kWarp)
    choose = Choose<8>;
  return Launch(context, args.rows, kWarp, 0, choose, args, logits);
}

}  // namespace switchyard::kernels::cuda
