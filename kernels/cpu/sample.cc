// Draws one token a row: penalties, temperature, top-k, top-p, min-p, then the largest of score
// plus Gumbel noise. Parallel over rows; a row is a handful of passes over its logits.
//
// The noise of token i at position p is -log(-log(u)), u = (bits + 1/2) / 2^32, bits = SamplingBits
// (philox.h). A token can only win if its noise exceeds best - score, that is if 1 - u is at most
// exp(score - best): a cheap test that spares nearly every token its two logarithms, and tokens
// 23 nats below the best their random number too. On 262,144 tokens of normally distributed scores
// 2.5 ms of a core without a filter, most of it Philox; 0.6 ms with min-p 0.05; 2 ms with top-p
// 0.9.

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/sample_filter.h"
#include "kernels/cpu/vectors.h"
#include "kernels/philox.h"

namespace switchyard::kernels {

void SampleScratch::Take(ScratchCutter& cut, int threads, int64_t vocabulary) {
  scores = cut.Take<float>(threads * vocabulary);
  probabilities = cut.Take<float>(threads * vocabulary);
  counts = cut.Take<int32_t>(threads * vocabulary);
}

namespace {

constexpr float kMostScore = std::numeric_limits<float>::max();

bool HasPenalties(const SamplingRow& row) {
  return row.repetition_penalty != 1 || row.presence_penalty != 0 || row.frequency_penalty != 0;
}

// Repetition counts prompt and output, presence and frequency the output only. counts[token] is
// only ever read after the history has cleared it, so it needs no clearing of its own. A number
// stays one, however hard the penalties are: -inf is for tokens that never come.
void Penalize(const SamplingRow& row, const int32_t* history, int32_t vocabulary, int32_t* counts,
              float* scores) {
  const int32_t length = row.position + 1;
  const auto valid = [&](int32_t i) { return history[i] >= 0 && history[i] < vocabulary; };
  for (int32_t i = 0; i < length; ++i) {
    if (valid(i)) counts[history[i]] = 0;
  }
  for (int32_t i = std::max(0, row.prompt_length); i < length; ++i) {
    if (valid(i)) ++counts[history[i]];
  }
  constexpr int32_t kDone = -1;
  for (int32_t i = 0; i < length; ++i) {
    if (!valid(i) || counts[history[i]] == kDone) continue;
    float& score = scores[history[i]];
    int32_t& count = counts[history[i]];
    const bool may_come = score > -std::numeric_limits<float>::infinity();
    score = score > 0 ? score / row.repetition_penalty : score * row.repetition_penalty;
    score -= row.frequency_penalty * static_cast<float>(count);
    if (count > 0) score -= row.presence_penalty;
    if (may_come) score = std::clamp(score, -kMostScore, kMostScore);
    count = kDone;
  }
}

// The first that is as large as the largest.
int32_t Best(const float* scores, float largest, int32_t count) {
  int32_t id = 0;
  return FindAtLeast(scores, largest, count, &id, 1) > 0 ? id : 0;
}

double Gumbel(uint32_t bits) {
  return -std::log(-std::log((static_cast<double>(bits) + 0.5) * 0x1p-32));
}

int32_t DrawByNoise(const SamplingRow& row, const Scores& s, Cutoff cutoff) {
  const int32_t position = row.position + 1;
  const int32_t first = Best(s.scores, 0, s.count);
  double best = s.scores[first] + Gumbel(SamplingBits(row.seed, position, first));
  int32_t chosen = first;
  double reach = std::exp(-best) * (1 + 1e-4);
  for (int32_t i = 0; i < s.count; ++i) {
    const double room = s.probabilities[i] * reach;  // what 1 - u may be at most
    if (room < 0x1p-33 || s.probabilities[i] < row.min_p || !cutoff.Keeps(s.scores[i], i)) continue;
    const uint32_t bits = SamplingBits(row.seed, position, i);
    if ((4294967295.5 - static_cast<double>(bits)) * 0x1p-32 > room) continue;
    const double score = s.scores[i] + Gumbel(bits);
    if (score > best || (score == best && i < chosen)) {
      best = score;
      chosen = i;
      reach = std::exp(-best) * (1 + 1e-4);
    }
  }
  return chosen;
}

int32_t Draw(const SamplingRow& row, const float* logits, const int32_t* history,
             int32_t vocabulary, float* scores, float* probabilities, int32_t* counts) {
  float largest = Largest(logits, vocabulary);
  if (!std::isfinite(largest)) return kNotNumbers;
  const bool greedy = !(row.temperature > 0);
  const float* from = logits;
  if (HasPenalties(row)) {
    std::copy_n(logits, vocabulary, scores);
    Penalize(row, history, vocabulary, counts, scores);
    largest = Largest(scores, vocabulary);
    from = scores;
  }
  if (greedy) return Best(from, largest, vocabulary);

  // The best becomes 0, so that no temperature overflows.
  for (int32_t i = 0; i < vocabulary; ++i) scores[i] = (from[i] - largest) / row.temperature;
  SumExp(scores, 0, vocabulary, probabilities);
  const Scores s = {scores, probabilities, vocabulary, counts};  // counts are done with
  Cutoff cutoff = {-std::numeric_limits<float>::infinity(), vocabulary};
  if (row.top_k > 0 && row.top_k < vocabulary) cutoff = CutToCount(s, cutoff, row.top_k);
  if (row.top_p < 1) cutoff = CutToShare(s, cutoff, std::max(1e-30, double{row.top_p}));
  return DrawByNoise(row, s, cutoff);
}

}  // namespace

OpError CpuOps::Sample(const SampleArgs& args, Scratch scratch, Stream stream) {
  const int64_t vocabulary = args.vocabulary;
  ScratchCutter cut(scratch);
  SampleScratch s;
  s.Take(cut, pool_.threads(), vocabulary);
  if (!cut.ok()) return kScratchTooSmall;
  pool_.ParallelFor(args.count, 1, [&](int thread, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const SamplingRow& row = args.rows[r];
      args.ids[r] = -1;
      if (row.draw == 0 || row.slot < 0) continue;
      int32_t* history = args.tokens.ids + int64_t{row.slot} * args.tokens.stride;
      const int64_t own = thread * vocabulary;
      const int32_t id = Draw(row, args.logits + r * vocabulary, history, args.vocabulary,
                              s.scores + own, s.probabilities + own, s.counts + own);
      args.ids[r] = id;
      if (row.position + 1 < args.tokens.stride) history[row.position + 1] = std::max(id, 0);
    }
  });
  return {};
}

}  // namespace switchyard::kernels
