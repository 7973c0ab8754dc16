// Log-softmax of the logits as they are: of the token that follows each row, and of the `top` best.
// Parallel over rows: one pass for the largest, one for the sum, one for the best few.

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/vectors.h"

namespace switchyard::kernels {
namespace {

// ids[0, most): the largest of x, best first, lower id first where equal; -1 where there are fewer.
void BestFew(const float* x, int32_t count, int32_t most, int32_t* ids) {
  int32_t kept = 0;
  for (int32_t i = 0; i < count; ++i) {
    if (kept == most && !(x[i] > x[ids[kept - 1]])) continue;
    int32_t at = kept < most ? kept++ : kept - 1;
    for (; at > 0 && x[i] > x[ids[at - 1]]; --at) ids[at] = ids[at - 1];
    ids[at] = i;
  }
  for (; kept < most; ++kept) ids[kept] = -1;
}

constexpr float kUnknown = std::numeric_limits<float>::quiet_NaN();

// Row r's logits are no answer.
void SayNothing(const LogprobArgs& args, int64_t r) {
  args.logprob[r] = kUnknown;
  std::fill_n(args.top_ids + r * args.top, args.top, -1);
  std::fill_n(args.top_logprobs + r * args.top, args.top, kUnknown);
}

}  // namespace

OpError CpuOps::Logprobs(const LogprobArgs& args, Scratch scratch, Stream stream) {
  const int64_t vocabulary = args.vocabulary;
  pool_.ParallelFor(args.count, 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const SamplingRow& row = args.rows[r];
      const float* logits = args.logits + r * vocabulary;
      args.logprob[r] = kUnknown;
      if (row.slot < 0) continue;
      const float largest = Largest(logits, vocabulary);
      if (!std::isfinite(largest)) {
        SayNothing(args, r);
        continue;
      }
      const float offset = largest + std::log(SumExp(logits, largest, vocabulary, nullptr));
      if (row.position + 1 < args.tokens.stride) {
        const int64_t at = int64_t{row.slot} * args.tokens.stride + row.position + 1;
        const int32_t id = args.tokens.ids[at];
        if (id >= 0 && id < args.vocabulary) args.logprob[r] = logits[id] - offset;
      }
      if (args.top <= 0) continue;
      int32_t* ids = args.top_ids + r * args.top;
      BestFew(logits, args.vocabulary, args.top, ids);
      for (int32_t i = 0; i < args.top; ++i) {
        args.top_logprobs[r * args.top + i] = ids[i] < 0 ? kUnknown : logits[ids[i]] - offset;
      }
    }
  });
  return {};
}

}  // namespace switchyard::kernels
