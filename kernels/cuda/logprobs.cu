// Log-softmax of the logits as they are: of the token that follows each row, and of the `top` best.
// A block a row: a pass for the largest, one for the sum, two to find the best few.

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/sample_select.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kMostTop = 20;

__device__ void SayNothing(const LogprobArgs& a, int64_t r, int32_t i) {
  a.top_ids[r * a.top + i] = -1;
  a.top_logprobs[r * a.top + i] = NAN;
}

__global__ __launch_bounds__(kSampleThreads) void LogprobRows(const LogprobArgs a,
                                                              SampleScratch s) {
  __shared__ SelectShared select;
  __shared__ Best best_of_warp[kWarp];
  __shared__ float sums[kWarp];
  __shared__ int32_t best[kMostTop], kept;
  GridTrigger();
  GridWait();
  const int64_t r = blockIdx.x;
  const SamplingRow row = a.rows[r];
  const float* logits = a.logits + r * a.vocabulary;
  if (threadIdx.x == 0) a.logprob[r] = NAN;
  if (row.slot < 0) return;
  float own_largest = -INFINITY, sum = 0;
  ForEach(logits, a.vocabulary, [&](int32_t, float x) { own_largest = fmaxf(own_largest, x); });
  Best largest_of;
  largest_of.Take(own_largest, 0);
  const float largest = static_cast<float>(BlockBest(largest_of, best_of_warp).score);
  ForEach(logits, a.vocabulary, [&](int32_t, float x) { sum += expf(x - largest); });
  const float offset = largest + logf(BlockSum(sum, sums));
  if (!isfinite(offset)) {  // a NaN is in the sum, and so is what is infinite less itself
    if (static_cast<int32_t>(threadIdx.x) < a.top) SayNothing(a, r, threadIdx.x);
    return;
  }
  if (threadIdx.x == 0 && row.position + 1 < a.tokens.stride) {
    const int32_t id = a.tokens.ids[int64_t{row.slot} * a.tokens.stride + row.position + 1];
    if (id >= 0 && id < a.vocabulary) a.logprob[r] = logits[id] - offset;
  }
  if (a.top <= 0) return;

  if (threadIdx.x == 0) kept = 0;
  const auto score_of = [&](int32_t i) { return logits[i] - largest; };
  const auto below = [&](float x) { return x - largest; };
  FillBuckets(select, a.vocabulary, logits, below, CountWeight, ~uint64_t{0});
  const uint64_t last =
      SelectCut(select, a.vocabulary, logits, below, CountWeight, ~uint64_t{0},
                static_cast<unsigned long long>(a.top), 0, s.counts + r * a.vocabulary);
  __syncthreads();
  ForEach(logits, a.vocabulary, [&](int32_t i, float x) {
    if (TokenKey(x - largest, i) > last) return;
    const int32_t at = atomicAdd(&kept, 1);
    if (at < kMostTop) best[at] = i;
  });
  __syncthreads();
  const int32_t count = min(kept, a.top), i = threadIdx.x;
  if (i >= a.top) return;
  if (i >= count) return SayNothing(a, r, i);
  int32_t* ids = a.top_ids + r * a.top;
  float* logprobs = a.top_logprobs + r * a.top;
  const uint64_t own = TokenKey(score_of(best[i]), best[i]);
  int32_t place = 0;
  for (int32_t j = 0; j < count; ++j) place += TokenKey(score_of(best[j]), best[j]) < own;
  ids[place] = best[i];
  logprobs[place] = logits[best[i]] - offset;
}

}  // namespace

OpError CudaOps::Logprobs(const LogprobArgs& args, Scratch scratch, Stream stream) {
  if (args.top > kMostTop) return {"at most 20 best tokens"};
  ScratchCutter cut(scratch);
  SampleScratch s;
  s.Take(cut, args.count, args.vocabulary);
  if (!cut.ok()) return kScratchTooSmall;
  return Launch(Context(stream), args.count, kSampleThreads, 0, LogprobRows, args, s);
}

}  // namespace switchyard::kernels::cuda
