// normed = norm(x); the K experts of each row and their weights.
//
// Norm and the router's product to float (of few rows one kernel, moe_logits.cu; else NormRows and
// a product of matmul.h), then a warp a row that chooses on a few hundred numbers in shared memory.
// Where two experts are equal, the lower id is chosen. Bound by latency.

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kMostChosen = 64;

// Larger for a larger number; the same for both zeros.
__device__ uint32_t Ordered(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The largest of `values`, lower id first where equal, in every lane.
__device__ int LargestOf(const float* values, int count) {
  float best = -INFINITY;
  int id = count;
  for (int i = threadIdx.x; i < count; i += kWarp) {
    if (values[i] > best) {
      best = values[i];
      id = i;
    }
  }
  const uint32_t order = Ordered(best), largest = __reduce_max_sync(kAllLanes, order);
  id = __reduce_min_sync(kAllLanes, order == largest ? id : count);
  return id < count ? id : 0;
}

__device__ void Softmax(float* x, int count) {
  float largest = -INFINITY, sum = 0;
  for (int i = threadIdx.x; i < count; i += kWarp) largest = fmaxf(largest, x[i]);
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, offset));
  }
  for (int i = threadIdx.x; i < count; i += kWarp) sum += x[i] = expf(x[i] - largest);
  sum = WarpSum(sum);
  for (int i = threadIdx.x; i < count; i += kWarp) x[i] /= sum;
  __syncwarp();
}

// choice = -inf for the experts outside the best groups. A group's score is the sum of its two
// best.
__device__ void CloseGroups(const MoeRouteArgs& a, int experts, float* choice, float* group_score) {
  const int size = experts / a.groups;
  for (int g = threadIdx.x; g < a.groups; g += kWarp) {
    float first = -INFINITY, second = -INFINITY;
    for (int e = g * size; e < (g + 1) * size; ++e) {
      second = fmaxf(second, fminf(first, choice[e]));
      first = fmaxf(first, choice[e]);
    }
    group_score[g] = size > 1 ? first + second : first;
  }
  __syncwarp();
  for (int i = 0; i < a.best_groups; ++i) {
    const int g = LargestOf(group_score, a.groups);
    __syncwarp();
    if (threadIdx.x == 0) group_score[g] = NAN;  // taken
    __syncwarp();
  }
  for (int e = threadIdx.x; e < experts; e += kWarp) {
    if (!isnan(group_score[e / size])) choice[e] = -INFINITY;
  }
  __syncwarp();
}

__global__ __launch_bounds__(kWarp) void Choose(const MoeRouteArgs a, const float* logits) {
  __shared__ float score[kMostExperts], choice[kMostExperts], group_score[kMostExperts];
  __shared__ float weight[kMostChosen];
  GridTrigger();
  GridWait();
  const int experts = static_cast<int>(a.router.n), lane = threadIdx.x;
  const int64_t row = blockIdx.x;
  for (int e = lane; e < experts; e += kWarp) score[e] = logits[row * experts + e];
  __syncwarp();
  const bool sigmoid = a.routing == Routing::kSigmoidGroups;
  if (a.routing == Routing::kSoftmaxTopK) Softmax(score, experts);
  for (int e = lane; e < experts; e += kWarp) {
    if (sigmoid) score[e] = 1.0f / (1.0f + expf(-score[e]));
    choice[e] = score[e] + (sigmoid && a.correction != nullptr ? a.correction[e] : 0);
  }
  __syncwarp();
  if (sigmoid) CloseGroups(a, experts, choice, group_score);
  for (int i = 0; i < a.chosen; ++i) {
    const int id = LargestOf(choice, experts);
    __syncwarp();
    if (lane == 0) {
      choice[id] = -INFINITY;
      weight[i] = score[id];
      a.ids[row * a.chosen + i] = id;
    }
    __syncwarp();
  }
  if (a.routing == Routing::kTopKSoftmax) Softmax(weight, a.chosen);
  const bool normalize = a.normalize && a.routing != Routing::kTopKSoftmax;
  float sum = sigmoid ? 1e-20f : 0.0f;
  for (int i = 0; normalize && i < a.chosen; ++i) sum += weight[i];  // every lane all of it
  for (int i = lane; i < a.chosen; i += kWarp) {
    const float part = normalize ? weight[i] / sum : weight[i];
    a.weights[row * a.chosen + i] = sigmoid ? part * a.scale : part;
  }
}

}  // namespace

OpError CudaOps::MoeRoute(const MoeRouteArgs& args, Scratch scratch, Stream stream) {
  const int64_t experts = args.router.n;
  if (experts > kMostExperts) return {"more experts than the CUDA kernels hold"};
  if (args.chosen < 1 || args.chosen > experts || args.chosen > kMostChosen) {
    return {"more experts chosen than there are"};
  }
  if (args.groups < 1 || experts % args.groups != 0 || args.best_groups < 1 ||
      args.best_groups > args.groups || args.chosen > experts / args.groups * args.best_groups) {
    return {"expert groups do not divide the experts, or hold fewer than are chosen"};
  }
  const LaunchContext context = Context(stream);
  ScratchCutter cut(scratch);
  float* logits = cut.Take<float>(args.rows * experts);
  if (!cut.ok()) return kScratchTooSmall;
  if (!context.invariant && TakesRouteLogits(args)) {
    SWITCHYARD_RETURN_IF_OP_ERROR(RouteLogits(args, logits, context));
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
  return Launch(context, args.rows, kWarp, 0, Choose, args, logits);
}

}  // namespace switchyard::kernels::cuda
