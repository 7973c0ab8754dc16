// Draws one token a row: penalties, temperature, top-k, top-p, min-p, then the largest of score
// plus Gumbel noise. A block of 1024 threads a row; greedy rows take one pass over the logits,
// drawn ones two, filtered ones five. One multiprocessor reads a row of 128k logits in about 5 us.
//
// Scores are the same floats as on the CPU, and the noise comes from the same Philox keys, so a
// seed draws the same token there and here.

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/sample_select.cuh"
#include "kernels/philox.h"

namespace switchyard::kernels::cuda {
namespace {

__device__ inline bool HasPenalties(const SamplingRow& row) {
  return row.repetition_penalty != 1 || row.presence_penalty != 0 || row.frequency_penalty != 0;
}

// Repetition counts prompt and output, presence and frequency the output only. counts[token] is
// only read after the history has cleared it.
__device__ void Penalize(const SamplingRow& row, const int32_t* history, int32_t vocabulary,
                         int32_t* counts, float* scores) {
  const int32_t length = row.position + 1;
  const auto valid = [&](int32_t i) { return history[i] >= 0 && history[i] < vocabulary; };
  for (int32_t i = threadIdx.x; i < length; i += kSampleThreads) {
    if (valid(i)) counts[history[i]] = 0;
  }
  __syncthreads();
  for (int32_t i = max(0, row.prompt_length) + threadIdx.x; i < length; i += kSampleThreads) {
    if (valid(i)) atomicAdd(&counts[history[i]], 1);
  }
  __syncthreads();
  constexpr int32_t kDone = -1;
  for (int32_t i = threadIdx.x; i < length; i += kSampleThreads) {
    if (!valid(i)) continue;
    const int32_t count = atomicExch(&counts[history[i]], kDone);
    if (count == kDone) continue;
    float score = scores[history[i]];
    score = score > 0 ? __fdiv_rn(score, row.repetition_penalty)
                      : __fmul_rn(score, row.repetition_penalty);
    score = __fsub_rn(score, __fmul_rn(row.frequency_penalty, static_cast<float>(count)));
    if (count > 0) score = __fsub_rn(score, row.presence_penalty);
    scores[history[i]] = score;
  }
  __syncthreads();
}

__device__ inline double Gumbel(uint32_t bits) {
  return -log(-log((static_cast<double>(bits) + 0.5) * 0x1p-32));
}

__device__ Best LargestScore(const float* scores, int32_t vocabulary, Best* shared) {
  float largest = -INFINITY;
  int32_t id = 0x7fffffff;
  ForEach(scores, vocabulary, [&](int32_t i, float score) {
    if (score > largest) {  // i rises
      largest = score;
      id = i;
    }
  });
  Best best;
  best.Take(largest, id);
  return BlockBest(best, shared);
}

// scores: at most 0, the largest is that of token `first`.
__device__ int32_t DrawByNoise(const SamplingRow& row, const float* scores, int32_t vocabulary,
                               int32_t first, uint64_t last_key, Best* shared) {
  const int32_t position = row.position + 1;
  Best best;
  best.Take(scores[first] + Gumbel(SamplingBits(row.seed, position, first)), first);
  double reach = exp(-best.score) * (1 + 1e-4);
  ForEach(scores, vocabulary, [&](int32_t i, float score) {
    const float probability = expf(score);
    const double room = probability * reach;  // what 1 - u may be at most to win
    if (room < 0x1p-33 || probability < row.min_p || TokenKey(score, i) > last_key) return;
    const uint32_t bits = SamplingBits(row.seed, position, i);
    if ((4294967295.5 - static_cast<double>(bits)) * 0x1p-32 > room) return;
    const double noisy = score + Gumbel(bits);
    if (noisy > best.score) reach = exp(-noisy) * (1 + 1e-4);
    best.Take(noisy, i);
  });
  return BlockBest(best, shared).id;
}

__device__ int32_t Draw(const SamplingRow& row, const float* logits, const int32_t* history,
                        int32_t vocabulary, float* scores, int32_t* counts, SelectShared& select,
                        Best* shared) {
  const bool greedy = !(row.temperature > 0), penalties = HasPenalties(row);
  if (penalties) {
    for (int32_t i = threadIdx.x; i < vocabulary; i += kSampleThreads) scores[i] = logits[i];
    __syncthreads();
    Penalize(row, history, vocabulary, counts, scores);
  }
  const float* from = penalties ? scores : logits;
  const Best first = LargestScore(from, vocabulary, shared);
  if (first.id >= vocabulary) return 0;
  if (greedy) return first.id;
  const float largest = static_cast<float>(first.score);
  ForEach(from, vocabulary, [&](int32_t i, float score) {
    scores[i] = __fdiv_rn(__fsub_rn(score, largest), row.temperature);
  });
  __syncthreads();
  uint64_t last = ~uint64_t{0};
  if (row.top_k > 0 && row.top_k < vocabulary) {
    last = SelectCut(
        select, vocabulary, scores, 0, [](float) { return 1ull; }, last,
        static_cast<unsigned long long>(row.top_k), 0, counts);
    __syncthreads();
  }
  if (row.top_p < 1) {
    const auto weight_of = [](float score) {
      return static_cast<unsigned long long>(static_cast<double>(expf(score)) * 0x1p40);
    };
    last = SelectCut(select, vocabulary, scores, 0, weight_of, last, 0,
                     fmax(1e-30, static_cast<double>(row.top_p)), counts);
    __syncthreads();
  }
  return DrawByNoise(row, scores, vocabulary, first.id, last, shared);
}

__global__ __launch_bounds__(kSampleThreads) void SampleRows(const SampleArgs a, SampleScratch s) {
  __shared__ SelectShared select;
  __shared__ Best shared[kWarp];
  GridTrigger();
  GridWait();
  const int64_t r = blockIdx.x, own = r * a.vocabulary;
  const SamplingRow row = a.rows[r];
  int32_t id = -1;
  if (row.draw != 0 && row.slot >= 0) {
    int32_t* history = a.tokens.ids + int64_t{row.slot} * a.tokens.stride;
    id = Draw(row, a.logits + own, history, a.vocabulary, s.scores + own, s.counts + own, select,
              shared);
    __syncthreads();
    if (threadIdx.x == 0 && row.position + 1 < a.tokens.stride) history[row.position + 1] = id;
  }
  if (threadIdx.x == 0) a.ids[r] = id;
}

}  // namespace

OpError CudaOps::Sample(const SampleArgs& args, Scratch scratch, Stream stream) {
  ScratchCutter cut(scratch);
  SampleScratch s;
  s.Take(cut, args.count, args.vocabulary);
  if (!cut.ok()) return kScratchTooSmall;
  return Launch(Context(stream), args.count, kSampleThreads, 0, SampleRows, args, s);
}

}  // namespace switchyard::kernels::cuda
