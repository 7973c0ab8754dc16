// Draws one token a row: penalties, temperature, top-k, top-p, min-p, then the largest of score
// plus Gumbel noise. 32 to 128 blocks a row look for the best, count the histogram of filtered
// rows, and draw; in between one block a row finds where filters cut. Penalized rows are left to
// one block of 1024 threads; one multiprocessor reads a row of 128k logits in about 5 us.
//
// Scores are the same floats as on the CPU, and the noise comes from the same Philox keys, so a
// seed draws the same token there and here.

#include <algorithm>
#include <limits>

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/sample_select.cuh"
#include "kernels/philox.h"

namespace switchyard::kernels::cuda {
namespace {

constexpr float kMostScore = std::numeric_limits<float>::max();

__device__ inline bool HasPenalties(const SamplingRow& row) {
  return row.repetition_penalty != 1 || row.presence_penalty != 0 || row.frequency_penalty != 0;
}

// Repetition counts prompt and output, presence and frequency the output only. counts[token] is
// only read after the history has cleared it. A number stays one, as on the CPU.
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
    const bool may_come = score > -INFINITY;
    score = score > 0 ? __fdiv_rn(score, row.repetition_penalty)
                      : __fmul_rn(score, row.repetition_penalty);
    score = __fsub_rn(score, __fmul_rn(row.frequency_penalty, static_cast<float>(count)));
    if (count > 0) score = __fsub_rn(score, row.presence_penalty);
    if (may_come) score = fminf(fmaxf(score, -kMostScore), kMostScore);
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

// The largest of a row's logits tells whether they are an answer: a NaN counts as infinite.
__device__ inline float OrInfinite(float logit) { return logit == logit ? logit : INFINITY; }
__device__ inline bool IsAnswer(const Best& largest) { return isfinite(largest.score); }

// A row with penalties is drawn by one block; of others many look at a chunk each.
__device__ inline bool IsChunked(const SamplingRow& row) {
  return row.draw != 0 && row.slot >= 0 && !HasPenalties(row);
}
__device__ inline bool CutsCount(const SamplingRow& row, int32_t vocabulary) {
  return row.top_k > 0 && row.top_k < vocabulary;
}
__device__ inline bool IsFiltered(const SamplingRow& row, int32_t vocabulary) {
  return row.temperature > 0 && (CutsCount(row, vocabulary) || row.top_p < 1);
}
__device__ inline double ShareOf(const SamplingRow& row) {
  return fmax(1e-30, static_cast<double>(row.top_p));
}

// The best of tokens [begin, end) with their noise, as far as it can win over token `first`, whose
// score is 0. Of the others, score_of(values[i]) is at most 0.
template <int kThreads, class ScoreOf>
__device__ Best BestByNoise(const SamplingRow& row, const float* values, int32_t begin, int32_t end,
                            int32_t first, uint64_t last_key, const ScoreOf& score_of) {
  __shared__ double start[2];  // logarithms in double are slow: once a block
  const int32_t position = row.position + 1;
  if (threadIdx.x == 0) {
    start[0] = Gumbel(SamplingBits(row.seed, position, first));
    start[1] = exp(-start[0]) * (1 + 1e-4);
  }
  __syncthreads();
  Best best;
  best.Take(start[0], first);
  double reach = start[1];
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

// One penalized row, by one block.
__device__ int32_t Draw(const SamplingRow& row, const float* logits, const int32_t* history,
                        int32_t vocabulary, float* scores, int32_t* counts, SelectShared& select,
                        Best* shared) {
  float own_largest = -INFINITY;
  ForEach(logits, vocabulary, [&](int32_t i, float x) {
    scores[i] = x;
    own_largest = fmaxf(own_largest, OrInfinite(x));
  });
  Best unpenalized;
  unpenalized.Take(own_largest, 0);
  if (!IsAnswer(BlockBest(unpenalized, shared))) return kNotNumbers;
  Penalize(row, history, vocabulary, counts, scores);
  const Best first = LargestScore(scores, vocabulary, shared);
  if (!(row.temperature > 0)) return first.id;
  const float largest = static_cast<float>(first.score);
  ForEach(scores, vocabulary, [&](int32_t i, float score) {
    scores[i] = __fdiv_rn(__fsub_rn(score, largest), row.temperature);
  });
  __syncthreads();
  const auto same = [](float score) { return score; };
  uint64_t last = ~uint64_t{0};
  if (CutsCount(row, vocabulary)) {
    FillBuckets(select, vocabulary, scores, same, CountWeight, last);
    last = SelectCut(select, vocabulary, scores, same, CountWeight, last,
                     static_cast<unsigned long long>(row.top_k), 0, counts);
    __syncthreads();
  }
  if (row.top_p < 1) {
    FillBuckets(select, vocabulary, scores, same, ShareWeight, last);
    last = SelectCut(select, vocabulary, scores, same, ShareWeight, last, 0, ShareOf(row), counts);
    __syncthreads();
  }
  const Best best = BestByNoise<kSampleThreads>(row, scores, 0, vocabulary, first.id, last, same);
  return BlockBest(best, shared).id;
}

constexpr int kChunkThreads = 256;
constexpr int32_t kMostOfChunk = 4095;  // see ChunkBuckets

struct Chunk {
  int32_t begin, end;
};
__device__ inline Chunk ChunkOf(int32_t vocabulary) {
  const int32_t chunks = static_cast<int32_t>(gridDim.x);
  const int32_t size = (vocabulary + chunks - 1) / chunks;
  const int32_t begin = min(vocabulary, static_cast<int32_t>(blockIdx.x) * size);
  return {begin, min(vocabulary, begin + size)};
}

// The best over the chunks of row r.
__device__ Best BestOfChunks(const SampleScratch& s, const double* bests, int64_t r, Best* shared) {
  Best best;
  if (static_cast<int32_t>(threadIdx.x) < s.chunks) {
    const double* own = bests + (r * kSampleChunks + threadIdx.x) * 2;
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

// How far below the best a logit of a row lies, in units of its temperature.
struct ScoreBelow {
  float largest, temperature;
  __device__ float operator()(float x) const {
    return __fdiv_rn(__fsub_rn(x, largest), temperature);
  }
};

// Also clears the row's histogram.
__global__ __launch_bounds__(kChunkThreads) void LargestOfChunks(const SampleArgs a,
                                                                 SampleScratch s) {
  __shared__ Best shared[kWarp];
  GridTrigger();
  GridWait();
  const int64_t r = blockIdx.y;
  const SamplingRow row = a.rows[r];
  if (!IsChunked(row)) return;
  if (IsFiltered(row, a.vocabulary)) {
    for (int i = blockIdx.x * kChunkThreads + threadIdx.x; i < kBuckets;
         i += gridDim.x * kChunkThreads) {
      s.bucket_tokens[r * kBuckets + i] = 0;
      s.bucket_weight[r * kBuckets + i] = 0;
    }
  }
  const Chunk chunk = ChunkOf(a.vocabulary);
  Best best;
  ForEach<kChunkThreads>(a.logits + r * a.vocabulary + chunk.begin, chunk.end - chunk.begin,
                         [&](int32_t i, float x) { best.Take(OrInfinite(x), chunk.begin + i); });
  StoreBest(BlockBest(best, shared), s.largest, r);
}

// The histogram of filtered rows: tokens and probabilities of every bucket. In shared memory a
// probability is added as two halves of 20 bits: 64-bit additions are slow there, and a chunk of
// less than 4096 tokens cannot overflow 32.
struct ChunkBuckets {
  Best best[kWarp];
  uint32_t tokens[kBuckets], low[kBuckets], high[kBuckets];
};
constexpr int kHalfBits = kWeightBits / 2;

__global__ __launch_bounds__(kChunkThreads) void CountBuckets(const SampleArgs a, SampleScratch s) {
  extern __shared__ __align__(16) char memory[];
  ChunkBuckets& own = *reinterpret_cast<ChunkBuckets*>(memory);
  GridTrigger();
  GridWait();
  const int64_t r = blockIdx.y;
  const SamplingRow row = a.rows[r];
  if (!IsChunked(row) || !IsFiltered(row, a.vocabulary)) return;
  for (int i = threadIdx.x; i < kBuckets; i += kChunkThreads) {
    own.tokens[i] = own.low[i] = own.high[i] = 0;
  }
  const Best first = BestOfChunks(s, s.largest, r, own.best);
  if (!IsAnswer(first)) return;
  const ScoreBelow score_of = {static_cast<float>(first.score), row.temperature};
  const Chunk chunk = ChunkOf(a.vocabulary);
  const bool weighs = row.top_p < 1;
  ForEach<kChunkThreads>(a.logits + r * a.vocabulary + chunk.begin, chunk.end - chunk.begin,
                         [&](int32_t, float x) {
                           const float score = score_of(x);
                           const int bucket = BucketOf(score);
                           atomicAdd(&own.tokens[bucket], 1u);
                           if (!weighs) return;
                           const unsigned long long weight = ShareWeight(score);
                           const uint32_t low = weight & ((1u << kHalfBits) - 1);
                           if (low != 0) atomicAdd(&own.low[bucket], low);
                           atomicAdd(&own.high[bucket], static_cast<uint32_t>(weight >> kHalfBits));
                         });
  __syncthreads();
  for (int i = threadIdx.x; i < kBuckets; i += kChunkThreads) {
    if (own.tokens[i] == 0) continue;
    atomicAdd(&s.bucket_tokens[r * kBuckets + i], own.tokens[i]);
    if (!weighs) continue;
    atomicAdd(&s.bucket_weight[r * kBuckets + i],
              (static_cast<unsigned long long>(own.high[i]) << kHalfBits) + own.low[i]);
  }
}

// The last key that stays of each filtered row, a block a row: the histogram's, then one pass over
// the logits for every cut.
__global__ __launch_bounds__(kSampleThreads) void CutRows(const SampleArgs a, SampleScratch s) {
  __shared__ SelectShared select;
  __shared__ Best shared[kWarp];
  GridTrigger();
  GridWait();
  const int64_t r = blockIdx.x;
  const SamplingRow row = a.rows[r];
  if (!IsChunked(row) || !IsFiltered(row, a.vocabulary)) return;
  const Best first = BestOfChunks(s, s.largest, r, shared);
  if (!IsAnswer(first)) return;
  const ScoreBelow score_of = {static_cast<float>(first.score), row.temperature};
  const float* logits = a.logits + r * a.vocabulary;
  int32_t* list = s.counts + r * a.vocabulary;
  uint64_t last = ~uint64_t{0};
  int cut_bucket = kBuckets;  // of the count's cut
  unsigned long long cut_weight = 0;
  if (CutsCount(row, a.vocabulary)) {
    for (int i = threadIdx.x; i < kBuckets; i += kSampleThreads) {
      select.weight[i] = s.bucket_tokens[r * kBuckets + i];
    }
    __syncthreads();
    last = SelectCut(select, a.vocabulary, logits, score_of, CountWeight, last,
                     static_cast<unsigned long long>(row.top_k), 0, list);
    __syncthreads();
    cut_bucket = select.bucket;
    unsigned long long own = 0;  // weight of what stays of that bucket
    for (int32_t j = threadIdx.x; j < select.found; j += kSampleThreads) {
      const float score = score_of(logits[list[j]]);
      if (TokenKey(score, list[j]) <= last) own += ShareWeight(score);
    }
    BlockScan(own, select.scan, cut_weight);
    __syncthreads();
  }
  if (row.top_p < 1) {
    for (int i = threadIdx.x; i < kBuckets; i += kSampleThreads) {
      const unsigned long long weight = s.bucket_weight[r * kBuckets + i];
      select.weight[i] = i < cut_bucket ? weight : i == cut_bucket ? cut_weight : 0;
    }
    __syncthreads();
    last =
        SelectCut(select, a.vocabulary, logits, score_of, ShareWeight, last, 0, ShareOf(row), list);
  }
  if (threadIdx.x == 0) s.last_key[r] = last;
}

__global__ __launch_bounds__(kChunkThreads) void DrawOfChunks(const SampleArgs a, SampleScratch s) {
  __shared__ Best shared[kWarp];
  GridTrigger();
  GridWait();
  const int64_t r = blockIdx.y;
  const SamplingRow row = a.rows[r];
  if (!IsChunked(row) || !(row.temperature > 0)) return;
  const Chunk chunk = ChunkOf(a.vocabulary);
  const Best first = BestOfChunks(s, s.largest, r, shared);
  if (!IsAnswer(first)) return StoreBest(first, s.drawn, r);
  const uint64_t last = IsFiltered(row, a.vocabulary) ? s.last_key[r] : ~uint64_t{0};
  const ScoreBelow score_of = {static_cast<float>(first.score), row.temperature};
  const Best best = BestByNoise<kChunkThreads>(row, a.logits + r * a.vocabulary, chunk.begin,
                                               chunk.end, first.id, last, score_of);
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
    if (IsChunked(row)) {
      const Best best = BestOfChunks(s, row.temperature > 0 ? s.drawn : s.largest, r, shared);
      id = IsAnswer(best) ? best.id : kNotNumbers;
    } else {
      id = Draw(row, a.logits + own, history, a.vocabulary, s.scores + own, s.counts + own, select,
                shared);
    }
    __syncthreads();
    if (threadIdx.x == 0 && row.position + 1 < a.tokens.stride)
      history[row.position + 1] = max(id, 0);
  }
  if (threadIdx.x == 0) a.ids[r] = id;
}

// Many for few rows, to fill the device; few for many rows, since each costs a start and an end.
int32_t ChunksOf(int32_t rows, int32_t vocabulary) {
  const int32_t least = (vocabulary + kMostOfChunk - 1) / kMostOfChunk;
  return rows < 16 ? kSampleChunks : std::max(32, least);
}

}  // namespace

OpError CudaOps::Sample(const SampleArgs& args, Scratch scratch, Stream stream) {
  if (args.vocabulary > kSampleChunks * kMostOfChunk) return {"more tokens than can be drawn from"};
  ScratchCutter cut(scratch);
  SampleScratch s;
  s.Take(cut, args.count, args.vocabulary);
  if (!cut.ok()) return kScratchTooSmall;
  const LaunchContext context = Context(stream);
  s.chunks = ChunksOf(args.count, args.vocabulary);
  const dim3 chunks(s.chunks, args.count);
  const size_t buckets = sizeof(ChunkBuckets);
  SWITCHYARD_RETURN_IF_OP_ERROR(AllowShared(CountBuckets, buckets));
  SWITCHYARD_RETURN_IF_OP_ERROR(
      Launch(context, chunks, kChunkThreads, 0, LargestOfChunks, args, s));
  SWITCHYARD_RETURN_IF_OP_ERROR(
      Launch(context, chunks, kChunkThreads, buckets, CountBuckets, args, s));
  SWITCHYARD_RETURN_IF_OP_ERROR(Launch(context, args.count, kSampleThreads, 0, CutRows, args, s));
  SWITCHYARD_RETURN_IF_OP_ERROR(Launch(context, chunks, kChunkThreads, 0, DrawOfChunks, args, s));
  return Launch(context, args.count, kSampleThreads, 0, SampleRows, args, s);
}

}  // namespace switchyard::kernels::cuda
