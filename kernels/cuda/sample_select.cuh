#pragma once

// Top-k and top-p of one row of a large vocabulary without sorting it, by one block: a histogram
// over the score finds the bucket where the cut lies, a radix select over that bucket's tokens
// finds the token. Weights are integers, so that sums do not depend on the order of the threads.

#include "kernels/cuda/device.cuh"

namespace switchyard::kernels::cuda {

constexpr int kSampleThreads = 1024;
constexpr int kBuckets = 4096;
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

struct SelectShared {
  unsigned long long weight[kBuckets];
  unsigned long long scan[kSampleThreads];
  unsigned long long above;
  uint64_t prefix;
  int32_t bucket, found, in_bin;
};

// Inclusive sums over the block.
__device__ inline unsigned long long BlockScan(unsigned long long value, unsigned long long* scan) {
  const int i = threadIdx.x;
  scan[i] = value;
  __syncthreads();
  for (int offset = 1; offset < kSampleThreads; offset *= 2) {
    const unsigned long long other = i >= offset ? scan[i - offset] : 0;
    __syncthreads();
    scan[i] += other;
    __syncthreads();
  }
  return scan[i];
}

// Scores are `scores` minus `largest`. The key of the last token that stays: the fewest best tokens
// among those with keys up to `before` whose weights reach `bound` (or `share` of all weights, if
// that is above 0).
template <class WeightOf>
__device__ uint64_t SelectCut(SelectShared& s, int32_t count, const float* scores, float largest,
                              const WeightOf& weight_of, uint64_t before, unsigned long long bound,
                              double share, int32_t* list) {
  const int thread = threadIdx.x;
  for (int i = thread; i < kBuckets; i += kSampleThreads) s.weight[i] = 0;
  if (thread == 0) s.found = 0, s.bucket = kBuckets;
  __syncthreads();
  ForEach(scores, count, [&](int32_t i, float value) {
    const float score = value - largest;
    if (TokenKey(score, i) <= before) atomicAdd(&s.weight[BucketOf(score)], weight_of(score));
  });
  __syncthreads();
  constexpr int kEach = kBuckets / kSampleThreads;
  unsigned long long own[kEach], sum = 0;
  for (int i = 0; i < kEach; ++i) sum += own[i] = s.weight[thread * kEach + i];
  const unsigned long long up_to = BlockScan(sum, s.scan), total = s.scan[kSampleThreads - 1];
  if (share > 0) bound = static_cast<unsigned long long>(ceil(share * static_cast<double>(total)));
  if (bound < 1) bound = 1;
  if (bound > total) return before;  // everything stays
  unsigned long long above = up_to - sum;
  if (above < bound && up_to >= bound) {
    int i = 0;
    while (above + own[i] < bound) above += own[i++];
    s.bucket = thread * kEach + i;
    s.above = above;
  }
  __syncthreads();
  const int bucket = s.bucket;
  ForEach(scores, count, [&](int32_t i, float value) {
    const float score = value - largest;
    if (BucketOf(score) == bucket && TokenKey(score, i) <= before) {
      list[atomicAdd(&s.found, 1)] = i;
    }
  });
  __syncthreads();
  const int32_t found = s.found;
  above = s.above;
  uint64_t prefix = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    const uint64_t mask = shift == 56 ? 0 : ~uint64_t{0} << (shift + 8);
    unsigned long long* weight = s.weight;        // [256]
    unsigned long long* tokens = s.weight + 256;  // [256]
    if (thread < 512) s.weight[thread] = 0;
    __syncthreads();
    for (int32_t j = thread; j < found; j += kSampleThreads) {
      const float score = (scores[list[j]] - largest);
      const uint64_t key = TokenKey(score, list[j]);
      if ((key & mask) != prefix) continue;
      const int digit = static_cast<int>(key >> shift & 255);
      atomicAdd(&weight[digit], weight_of(score));
      atomicAdd(&tokens[digit], 1ull);
    }
    __syncthreads();
    const unsigned long long mine = thread < 256 ? weight[thread] : 0;
    const unsigned long long reach = BlockScan(mine, s.scan);
    if (above + reach - mine < bound && above + reach >= bound && mine > 0) {
      s.above = above + reach - mine;
      s.prefix = prefix | uint64_t(thread) << shift;
      s.in_bin = static_cast<int32_t>(tokens[thread]);
    }
    __syncthreads();
    above = s.above;
    prefix = s.prefix;
    const bool done = s.in_bin == 1;
    __syncthreads();
    if (done) {  // one token is left: its whole key
      for (int32_t j = thread; j < found; j += kSampleThreads) {
        const uint64_t key = TokenKey((scores[list[j]] - largest), list[j]);
        if (key >> shift == prefix >> shift) s.prefix = key;
      }
      __syncthreads();
      return s.prefix;
    }
  }
  return prefix;
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
