// A histogram over the score (32 nats below the best in 4096 buckets, the rest in the last) finds
// the bucket where the cut lies, in one pass; only that bucket's tokens are sorted. On 262,144
// tokens of normally distributed scores 1.5 ms of a core, where sorting them takes 20 ms.

#include "kernels/cpu/sample_filter.h"

#include <algorithm>

namespace switchyard::kernels {
namespace {

constexpr int kBuckets = 4096;
constexpr float kBucketsPerNat = 128.0f;

int BucketOf(float score) {
  const float place = -score * kBucketsPerNat;
  return place < kBuckets - 1 ? static_cast<int>(place) : kBuckets - 1;  // NaN: the last
}

// The weight of a token is one, or its probability.
template <class WeightOf>
Cutoff Cut(const Scores& s, Cutoff before, double bound, double share, const WeightOf& weight_of) {
  double weight[kBuckets] = {};
  for (int32_t i = 0; i < s.count; ++i) {
    if (before.Keeps(s.scores[i], i)) weight[BucketOf(s.scores[i])] += weight_of(i);
  }
  if (share > 0) {
    double total = 0;
    for (double w : weight) total += w;
    bound = share * total;
  }
  double above = 0;
  int bucket = 0;
  while (bucket < kBuckets - 1 && above + weight[bucket] < bound) above += weight[bucket++];

  int32_t found = 0;
  for (int32_t i = 0; i < s.count; ++i) {
    if (BucketOf(s.scores[i]) == bucket && before.Keeps(s.scores[i], i)) s.order[found++] = i;
  }
  if (found == 0) return before;  // everything lies above
  std::sort(s.order, s.order + found, [&](int32_t a, int32_t b) {
    return s.scores[a] > s.scores[b] || (s.scores[a] == s.scores[b] && a < b);
  });
  int32_t kept = 0;
  do {
    above += weight_of(s.order[kept++]);
  } while (kept < found && above < bound);
  return {s.scores[s.order[kept - 1]], s.order[kept - 1]};
}

}  // namespace

Cutoff CutToCount(const Scores& s, Cutoff before, int64_t most) {
  return Cut(s, before, static_cast<double>(most), 0, [](int32_t) { return 1.0; });
}

Cutoff CutToShare(const Scores& s, Cutoff before, double share) {
  return Cut(s, before, 0, share, [&](int32_t i) { return double{s.probabilities[i]}; });
}

}  // namespace switchyard::kernels
