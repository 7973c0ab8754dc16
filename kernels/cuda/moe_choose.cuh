#pragma once

// The K experts of a row and their weights, by one warp: scores in registers, expert e in lane
// e % 32. Where two experts are equal, the lower id is chosen.

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.cuh"

namespace switchyard::kernels::cuda {

constexpr int kMostChosen = 64;

// For experts in groups of which some are closed.
struct ChoiceShared {
  float choice[kMostExperts], group_score[kMostExperts];
};

__host__ __device__ inline bool ClosesGroups(const MoeRouteArgs& a) {
  return a.routing == Routing::kSigmoidGroups && a.best_groups < a.groups;
}

// Larger for a larger number; the same for both zeros.
__device__ inline uint32_t Ordered(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// The id of the warp's largest value, of `best` at `id` in each lane: the lower one where equal; 0
// if there is none.
__device__ inline int LargestOf(float best, int id, int none) {
  const uint32_t order = Ordered(best), largest = __reduce_max_sync(kAllLanes, order);
  id = static_cast<int>(
      __reduce_min_sync(kAllLanes, static_cast<uint32_t>(order == largest ? id : none)));
  return id < none ? id : 0;
}

__device__ inline float WarpMax(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, offset));
  }
  return x;
}

// Over the warp's values; those of -inf become 0.
template <int kEach>
__device__ inline void WarpSoftmax(float (&x)[kEach]) {
  float largest = -INFINITY, sum = 0;
#pragma unroll
  for (int j = 0; j < kEach; ++j) largest = fmaxf(largest, x[j]);
  largest = WarpMax(largest);
#pragma unroll
  for (int j = 0; j < kEach; ++j) sum += x[j] = expf(x[j] - largest);
  sum = WarpSum(sum);
#pragma unroll
  for (int j = 0; j < kEach; ++j) x[j] /= sum;
}

// choice = -inf for the experts outside the best groups. A group's score is the sum of its two
// best.
__device__ inline void CloseGroups(const MoeRouteArgs& a, int experts, ChoiceShared& s) {
  const int size = experts / a.groups, lane = threadIdx.x % kWarp;
  for (int g = lane; g < a.groups; g += kWarp) {
    float first = -INFINITY, second = -INFINITY;
    for (int e = g * size; e < (g + 1) * size; ++e) {
      second = fmaxf(second, fminf(first, s.choice[e]));
      first = fmaxf(first, s.choice[e]);
    }
    s.group_score[g] = size > 1 ? first + second : first;
  }
  __syncwarp();
  for (int i = 0; i < a.best_groups; ++i) {
    float best = -INFINITY;
    int id = a.groups;
    for (int g = lane; g < a.groups; g += kWarp) {
      if (s.group_score[g] > best) {
        best = s.group_score[g];
        id = g;
      }
    }
    const int g = LargestOf(best, id, a.groups);
    __syncwarp();
    if (lane == 0) s.group_score[g] = NAN;  // taken
    __syncwarp();
  }
  for (int e = lane; e < experts; e += kWarp) {
    if (!isnan(s.group_score[e / size])) s.choice[e] = -INFINITY;
  }
  __syncwarp();
}

template <int kEach>
__device__ inline void CloseGroups(const MoeRouteArgs& a, int experts, float (&choice)[kEach],
                                   ChoiceShared& s) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    if (const int e = lane + j * kWarp; e < experts) s.choice[e] = choice[j];
  }
  __syncwarp();
  CloseGroups(a, experts, s);
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    if (const int e = lane + j * kWarp; e < experts) choice[j] = s.choice[e];
  }
}

// The chosen experts' weights, of choice lane + 32 j.
__device__ inline void WeighChosen(const MoeRouteArgs& a, float (&weight)[2]) {
  if (a.routing == Routing::kTopKSoftmax) return WarpSoftmax(weight);
  const bool sigmoid = a.routing == Routing::kSigmoidGroups;
  const float sum = a.normalize ? WarpSum(weight[0] + weight[1]) + (sigmoid ? 1e-20f : 0.0f) : 1.0f;
#pragma unroll
  for (float& w : weight) w = (sigmoid ? a.scale : 1.0f) * (w / sum);
}

// Of `row`, whose logits are [experts], at most 32 kEach of them. `shared` is not null if
// ClosesGroups.
template <int kEach>
__device__ inline void ChooseExperts(const MoeRouteArgs& a, int64_t row, const float* logits,
                                     ChoiceShared* shared) {
  const int experts = static_cast<int>(a.router.n), lane = threadIdx.x % kWarp;
  const bool sigmoid = a.routing == Routing::kSigmoidGroups;
  float score[kEach], choice[kEach];
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    const int e = lane + j * kWarp;
    score[j] = e < experts ? __ldcg(logits + e) : -INFINITY;
  }
  if (a.routing == Routing::kSoftmaxTopK) WarpSoftmax(score);
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    const int e = lane + j * kWarp;
    if (sigmoid) score[j] = 1.0f / (1.0f + expf(-score[j]));
    choice[j] = e < experts ? score[j] : -INFINITY;
    if (sigmoid && a.correction != nullptr && e < experts) choice[j] += a.correction[e];
  }
  if (ClosesGroups(a)) CloseGroups(a, experts, choice, *shared);
  const bool all = a.routing == Routing::kTopKSoftmax;
  float weight[2] = {all ? -INFINITY : 0.0f, all ? -INFINITY : 0.0f};
  int ids[2] = {};
  for (int i = 0; i < a.chosen; ++i) {
    float best = -INFINITY;
    int id = experts;
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      if (choice[j] > best) {
        best = choice[j];
        id = lane + j * kWarp;
      }
    }
    id = LargestOf(best, id, experts);
    float chosen = 0;
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      if (lane + j * kWarp == id) {
        choice[j] = -INFINITY;
        chosen = score[j];
      }
    }
    chosen = __shfl_sync(kAllLanes, chosen, id % kWarp);
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      if (lane + j * kWarp == i) {
        weight[j] = chosen;
        ids[j] = id;
      }
    }
  }
  WeighChosen(a, weight);
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    if (const int i = lane + j * kWarp; i < a.chosen) {
      a.ids[row * a.chosen + i] = ids[j];
      a.weights[row * a.chosen + i] = weight[j];
    }
  }
}

}  // namespace switchyard::kernels::cuda
