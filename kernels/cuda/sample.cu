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

// Whether a row's chunks can be looked at apart.
__device__ inline bool IsPlain(const SamplingRow& row, int32_t vocabulary) {
  return !HasPenalties(row) && !(row.top_k > 0 && row.top_k < vocabulary) && !(row.top_p < 1);
}

// The best of tokens [begin, end) with their noise, as far as it can win over token `first`, whose
// score is 0. Of the others, score_of(values[i]) is at most 0.
template <int kThreads, class ScoreOf>
__device__ Best BestByNoise(const SamplingRow& row, const float* values, int32_t begin, int32_t end,
                            int32_t first, uint64_t last_key, const ScoreOf& score_of) {
  const int32_t position = row.position + 1;
  Best best;
  best.Take(Gumbel(SamplingBits(row.seed, position, first)), first);
  double reach = exp(-best.score) * (1 + 1e-4);
  ForEach<kThreads>(values + begin, end - begin, [&](int32_t at, float value) {
    const int32_t i = begin + at;
    const float score = score_of(value), probability = expf(score);
    const double room = probability * reach;  // what 1 - u may be at most to win
    if (room < 0x1p-33 || probability < row.min_p || TokenKey(score, i) > last_key) return;
    const uint32_t bits = SamplingBits(row.seed, position, i);
    if ((4294967295.5 - static_cast<double>(bits)) * 0x1p-32 > room) return;
    const double noisy = score + Gumbel(bits);
    if (noisy > best.score) reach = exp(-noisy) * (1 + 1e-4);
    best.Take(noisy, i);
  });
  return best;
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
  const Best best = BestByNoise<kSampleThreads>(row, scores, 0, vocabulary, first.id, last,
                                                [](float score) { return score; });
  return BlockBest(best, shared).id;
}

constexpr int kChunkThreads = 256;

struct Chunk {
  int32_t begin, end;
};
__device__ inline Chunk ChunkOf(int32_t vocabulary) {
  const int32_t size = (vocabulary + kSampleChunks - 1) / kSampleChunks;
  const int32_t begin = min(vocabulary, static_cast<int32_t>(blockIdx.x) * size);
  return {begin, min(vocabulary, begin + size)};
}

// The best over the chunks of row r.
__device__ Best BestOfChunks(const double* chunks, int64_t r, Best* shared) {
  Best best;
  if (threadIdx.x < kSampleChunks) {
    const double* own = chunks + (r * kSampleChunks + threadIdx.x) * 2;
    best.Take(own[0], static_cast<int32_t>(own[1]));
  }
  return BlockBest(best, shared);
}
__device__ inline void StoreBest(const Best& best, double* chunks, int64_t r) {
  if (threadIdx.x != 0) return;
  double* own = chunks + (r * kSampleChunks + blockIdx.x) * 2;
  own[0] = best.score;
  own[1] = best.id;
}

__global__ __launch_bounds__(kChunkThreads) void LargestOfChunks(const SampleArgs a,
                                                                 SampleScratch s) {
  __shared__ Best shared[kWarp];
  GridTrigger();
  GridWait();
  const int64_t r = blockIdx.y;
  const SamplingRow row = a.rows[r];
  if (row.draw == 0 || row.slot < 0 || !IsPlain(row, a.vocabulary)) return;
  const Chunk chunk = ChunkOf(a.vocabulary);
  Best best;
  ForEach<kChunkThreads>(a.logits + r * a.vocabulary + chunk.begin, chunk.end - chunk.begin,
                         [&](int32_t i, float x) { best.Take(x, chunk.begin + i); });
  StoreBest(BlockBest(best, shared), s.largest, r);
}

__global__ __launch_bounds__(kChunkThreads) void DrawOfChunks(const SampleArgs a, SampleScratch s) {
  __shared__ Best shared[kWarp];
  GridTrigger();
  GridWait();
  const int64_t r = blockIdx.y;
  const SamplingRow row = a.rows[r];
  if (row.draw == 0 || row.slot < 0 || !IsPlain(row, a.vocabulary) || !(row.temperature > 0))
    return;
  const Chunk chunk = ChunkOf(a.vocabulary);
  const Best first = BestOfChunks(s.largest, r, shared);
  const float largest = static_cast<float>(first.score);
  const Best best = BestByNoise<kChunkThreads>(
      row, a.logits + r * a.vocabulary, chunk.begin, chunk.end, first.id, ~uint64_t{0},
      [&](float x) { return __fdiv_rn(__fsub_rn(x, largest), row.temperature); });
  StoreBest(BlockBest(best, shared), s.drawn, r);
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
    if (IsPlain(row, a.vocabulary)) {
      id = BestOfChunks(row.temperature > 0 ? s.drawn : s.largest, r, shared).id;
      if (id >= a.vocabulary) id = 0;
    } else {
      id = Draw(row, a.logits + own, history, a.vocabulary, s.scores + own, s.counts + own, select,
                shared);
    }
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
  const LaunchContext context = Context(stream);
  const dim3 chunks(kSampleChunks, args.count);
  SWITCHYARD_RETURN_IF_OP_ERROR(
      Launch(context, chunks, kChunkThreads, 0, LargestOfChunks, args, s));
  SWITCHYARD_RETURN_IF_OP_ERROR(Launch(context, chunks, kChunkThreads, 0, DrawOfChunks, args, s));
  return Launch(context, args.count, kSampleThreads, 0, SampleRows, args, s);
}

}  // namespace switchyard::kernels::cuda
