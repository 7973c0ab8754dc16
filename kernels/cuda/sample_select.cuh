#pragma once

// Top-k and top-p of one row of a large vocabulary without sorting it: a histogram over the score
// (made by one block, or by many) finds the bucket where the cut lies; that bucket's tokens are
// sorted by one block, or, if they are very many, cut by a radix select. Weights are integers, so
// that sums do not depend on the order of the threads.

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/device.cuh"

namespace switchyard::kernels::cuda {

constexpr int kSampleThreads = 1024;
constexpr float kBucketsPerNat = 128.0f;

// Orders tokens best first, lower id first where equal.
__device__ inline uint64_t TokenKey(float score, int32_t id) {
  const uint32_t bits = __float_as_uint(score == 0 ? 0.0f : score);  // -0 is 0
  const uint32_t rising = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return (uint64_t{~rising} << 32) | static_cast<uint32_t>(id);
}

__device__ inline int BucketOf(float score) {
  const float place = -score * kBucketsPerNat;
  return place < kBuckets - 1 ? static_cast<int>(place) : kBuckets - 1;
}

// Calls f(i, values[i]) for this thread's part of a row, with eight loads in flight: a block alone
// on its multiprocessor has nothing else to hide their latency with.
template <int kThreads = kSampleThreads, class F>
__device__ inline void ForEach(const float* values, int32_t count, const F& f) {
  constexpr int kInFlight = 8;
  for (int32_t first = threadIdx.x; first < count; first += kInFlight * kThreads) {
    float v[kInFlight];
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) {
      const int32_t i = first + j * kThreads;
      v[j] = i < count ? values[i] : 0;
    }
#pragma unroll
    for (int j = 0; j < kInFlight; ++j) {
      const int32_t i = first + j * kThreads;
      if (i < count) f(i, v[j]);
    }
  }
}

// What a token counts for: one for top-k, its probability times 2^40 for top-p.
constexpr int kWeightBits = 40;
__device__ inline unsigned long long CountWeight(float) { return 1; }
__device__ inline unsigned long long ShareWeight(float score) {
  return static_cast<unsigned long long>(static_cast<double>(expf(score)) *
                                         static_cast<double>(1ull << kWeightBits));
}

struct SelectShared {
  unsigned long long weight[kBuckets];
  unsigned long long scan[kWarp];
  unsigned long long above;
  uint64_t prefix;
  int32_t bucket, found;
};

// Inclusive sums over the block; `total` of all.
__device__ inline unsigned long long BlockScan(unsigned long long value, unsigned long long* scan32,
                                               unsigned long long& total) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
#pragma unroll
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const unsigned long long other = __shfl_up_sync(kAllLanes, value, offset);
    if (lane >= offset) value += other;
  }
  __syncthreads();
  if (lane == kWarp - 1) scan32[warp] = value;
  __syncthreads();
  unsigned long long before = 0;
  total = 0;
#pragma unroll 8
  for (int w = 0; w < kSampleThreads / kWarp; ++w) {
    if (w < warp) before += scan32[w];
    total += scan32[w];
  }
  return value + before;
}

// The histogram of the tokens with keys up to `before`, by one block.
template <class ScoreOf, class WeightOf>
__device__ void FillBuckets(SelectShared& s, int32_t count, const float* values,
                            const ScoreOf& score_of, const WeightOf& weight_of, uint64_t before) {
  for (int i = threadIdx.x; i < kBuckets; i += kSampleThreads) s.weight[i] = 0;
  __syncthreads();
  ForEach(values, count, [&](int32_t i, float value) {
    const float score = score_of(value);
    if (TokenKey(score, i) <= before) atomicAdd(&s.weight[BucketOf(score)], weight_of(score));
  });
  __syncthreads();
}

// The bucket where the weights reach `bound` (or `share` of all, if that is above 0), and what lies
// above it. False: they never do.
__device__ inline bool FindBucket(SelectShared& s, unsigned long long& bound, double share) {
  constexpr int kEach = kBuckets / kSampleThreads;
  unsigned long long own[kEach], sum = 0, total;
  for (int i = 0; i < kEach; ++i) sum += own[i] = s.weight[threadIdx.x * kEach + i];
  const unsigned long long up_to = BlockScan(sum, s.scan, total);
  if (share > 0) bound = static_cast<unsigned long long>(ceil(share * static_cast<double>(total)));
  if (bound < 1) bound = 1;
  if (bound > total) return false;
  unsigned long long above = up_to - sum;
  if (above < bound && up_to >= bound) {
    int i = 0;
    while (above + own[i] < bound) above += own[i++];
    s.bucket = threadIdx.x * kEach + i;
    s.above = above;
  }
  if (threadIdx.x == 0) s.found = 0;
  __syncthreads();
  return true;
}

// The score that a key was made of.
__device__ inline float ScoreOfKey(uint64_t key) {
  const uint32_t rising = ~static_cast<uint32_t>(key >> 32);
  return __uint_as_float(rising & 0x80000000u ? rising & 0x7fffffffu : ~rising);
}

// Bitonic sort of `count` keys in shared memory, a power of two.
__device__ inline void SortKeys(unsigned long long* keys, int count) {
  for (int size = 2; size <= count; size *= 2) {
    for (int step = size / 2; step > 0; step /= 2) {
      for (int i = threadIdx.x; i < count / 2; i += kSampleThreads) {
        const int low = 2 * i - (i & (step - 1)), high = low + step;
        const bool rises = (low & size) == 0;
        const unsigned long long a = keys[low], b = keys[high];
        if ((a > b) == rises) {
          keys[low] = b;
          keys[high] = a;
        }
      }
      __syncthreads();
    }
  }
}

// The key among the listed tokens, at most kBuckets, at which weights on top of s.above reach
// `bound`: sorted in s.weight.
template <class ScoreOf, class WeightOf>
__device__ uint64_t CutBySorting(SelectShared& s, const float* values, const ScoreOf& score_of,
                                 const WeightOf& weight_of, unsigned long long bound,
                                 const int32_t* list) {
  const int found = s.found;
  int count = kSampleThreads;
  while (count < found) count *= 2;
  for (int i = threadIdx.x; i < count; i += kSampleThreads) {
    s.weight[i] = i < found ? TokenKey(score_of(values[list[i]]), list[i]) : ~0ull;
  }
  __syncthreads();
  SortKeys(s.weight, count);
  const int each = count / kSampleThreads, first = threadIdx.x * each;
  const auto weight_at = [&](int i) {
    return i < found ? weight_of(ScoreOfKey(s.weight[i])) : 0ull;
  };
  unsigned long long sum = 0, total;
  for (int i = first; i < first + each; ++i) sum += weight_at(i);
  unsigned long long above = s.above + BlockScan(sum, s.scan, total) - sum;
  if (above < bound && above + sum >= bound) {
    int i = first;
    while (above + weight_at(i) < bound) above += weight_at(i++);
    s.prefix = s.weight[i];
  }
  __syncthreads();
  return s.prefix;
}

// The same for any number of them, digit by digit.
template <class ScoreOf, class WeightOf>
__device__ uint64_t CutByDigits(SelectShared& s, const float* values, const ScoreOf& score_of,
                                const WeightOf& weight_of, unsigned long long bound,
                                const int32_t* list) {
  const int thread = threadIdx.x, found = s.found;
  unsigned long long above = s.above;
  uint64_t prefix = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    const uint64_t mask = shift == 56 ? 0 : ~uint64_t{0} << (shift + 8);
    if (thread < 256) s.weight[thread] = 0;
    __syncthreads();
    for (int32_t j = thread; j < found; j += kSampleThreads) {
      const float score = score_of(values[list[j]]);
      const uint64_t key = TokenKey(score, list[j]);
      if ((key & mask) == prefix) atomicAdd(&s.weight[key >> shift & 255], weight_of(score));
    }
    __syncthreads();
    const unsigned long long mine = thread < 256 ? s.weight[thread] : 0;
    unsigned long long total;
    const unsigned long long reach = BlockScan(mine, s.scan, total);
    if (above + reach - mine < bound && above + reach >= bound && mine > 0) {
      s.above = above + reach - mine;
      s.prefix = prefix | uint64_t(thread) << shift;
    }
    __syncthreads();
    above = s.above;
    prefix = s.prefix;
  }
  return prefix;
}

// The key of the last token that stays: the fewest best tokens among those with keys up to `before`
// whose weights reach `bound` (or `share` of all). s.weight: their histogram, lost. list: room for
// the tokens of one bucket, left there with their number in s.found.
template <class ScoreOf, class WeightOf>
__device__ uint64_t SelectCut(SelectShared& s, int32_t count, const float* values,
                              const ScoreOf& score_of, const WeightOf& weight_of, uint64_t before,
                              unsigned long long bound, double share, int32_t* list) {
  if (!FindBucket(s, bound, share)) return before;  // everything stays
  const int bucket = s.bucket;
  ForEach(values, count, [&](int32_t i, float value) {
    const float score = score_of(value);
    if (BucketOf(score) == bucket && TokenKey(score, i) <= before) {
      list[atomicAdd(&s.found, 1)] = i;
    }
  });
  __syncthreads();
  return s.found <= kBuckets ? CutBySorting(s, values, score_of, weight_of, bound, list)
                             : CutByDigits(s, values, score_of, weight_of, bound, list);
}

// The best key of the block and its score, in every thread.
struct Best {
  double score = -INFINITY;
  int32_t id = 0x7fffffff;
  __device__ void Take(double other, int32_t other_id) {
    if (other > score || (other == score && other_id < id)) {
      score = other;
      id = other_id;
    }
  }
};
__device__ inline Best BlockBest(Best best, Best* shared32) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const double other = __shfl_xor_sync(kAllLanes, best.score, offset);
    const int32_t id = __shfl_xor_sync(kAllLanes, best.id, offset);
    best.Take(other, id);
  }
  __syncthreads();
  if (threadIdx.x % kWarp == 0) shared32[threadIdx.x / kWarp] = best;
  __syncthreads();
  best = Best();
  for (int i = 0; i < static_cast<int>(blockDim.x) / kWarp; ++i) {
    best.Take(shared32[i].score, shared32[i].id);
  }
  return best;
}

}  // namespace switchyard::kernels::cuda
