// normed = norm(x); the K experts of each row and their weights.
//
// The router's product runs over experts like any other; choosing runs over rows, on a few hundred
// numbers a row. Where two experts are equal, the lower id is chosen.

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/vectors.h"

namespace switchyard::kernels {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

// ids[0, chosen): the largest of `values`, best first, lower id first where equal. `group_open`:
// null, or per group of `group_size` experts whether it takes part.
void ChooseLargest(const float* values, int32_t count, const bool* group_open, int32_t group_size,
                   int32_t chosen, int32_t* ids) {
  int32_t kept = 0;
  for (int32_t e = 0; e < count; ++e) {
    if (group_open != nullptr && !group_open[e / group_size]) continue;
    if (kept == chosen && !(values[e] > values[ids[kept - 1]])) continue;
    int32_t at = kept < chosen ? kept++ : kept - 1;
    for (; at > 0 && values[e] > values[ids[at - 1]]; --at) ids[at] = ids[at - 1];
    ids[at] = e;
  }
}

void Softmax(float* x, int32_t count) {
  const float largest = *std::max_element(x, x + count);
  float sum = 0;
  for (int32_t i = 0; i < count; ++i) sum += x[i] = std::exp(x[i] - largest);
  for (int32_t i = 0; i < count; ++i) x[i] /= sum;
}

// Groups of consecutive experts; the score of a group is the sum of its two best choices.
void OpenBestGroups(const float* choice, int32_t experts, int32_t groups, int32_t best_groups,
                    bool* open) {
  const int32_t size = experts / groups;
  float score[kMaxExpertGroups];
  int32_t best[kMaxExpertGroups];
  for (int32_t g = 0; g < groups; ++g) {
    float first = kNever, second = kNever;
    for (int32_t e = g * size; e < (g + 1) * size; ++e) {
      if (choice[e] > first) {
        second = first;
        first = choice[e];
      } else if (choice[e] > second) {
        second = choice[e];
      }
    }
    score[g] = size > 1 ? first + second : first;
    open[g] = false;
  }
  ChooseLargest(score, groups, nullptr, 1, best_groups, best);
  for (int32_t i = 0; i < best_groups; ++i) open[best[i]] = true;
}

// `logits` [E] is overwritten.
void RouteRow(const MoeRouteArgs& args, float* logits, float* choice, int32_t* ids,
              float* weights) {
  const int32_t experts = static_cast<int32_t>(args.router.n), chosen = args.chosen;
  switch (args.routing) {
    case Routing::kSoftmaxTopK:
      Softmax(logits, experts);
      ChooseLargest(logits, experts, nullptr, 1, chosen, ids);
      for (int32_t i = 0; i < chosen; ++i) weights[i] = logits[ids[i]];
      break;
    case Routing::kTopKSoftmax:
      ChooseLargest(logits, experts, nullptr, 1, chosen, ids);
      for (int32_t i = 0; i < chosen; ++i) weights[i] = logits[ids[i]];
      Softmax(weights, chosen);
      return;
    case Routing::kSigmoidGroups: {
      for (int32_t e = 0; e < experts; ++e) {
        logits[e] = 1.0f / (1.0f + std::exp(-logits[e]));
        choice[e] = args.correction != nullptr ? logits[e] + args.correction[e] : logits[e];
      }
      bool open[kMaxExpertGroups];
      OpenBestGroups(choice, experts, args.groups, args.best_groups, open);
      ChooseLargest(choice, experts, open, experts / args.groups, chosen, ids);
      for (int32_t i = 0; i < chosen; ++i) weights[i] = logits[ids[i]];
      break;
    }
  }
  const bool sigmoid = args.routing == Routing::kSigmoidGroups;
  if (args.normalize) {
    float sum = sigmoid ? 1e-20f : 0.0f;
    for (int32_t i = 0; i < chosen; ++i) sum += weights[i];
    for (int32_t i = 0; i < chosen; ++i) weights[i] /= sum;
  }
  if (sigmoid) {
    for (int32_t i = 0; i < chosen; ++i) weights[i] *= args.scale;
  }
}

}  // namespace

OpError CpuOps::MoeRoute(const MoeRouteArgs& args, Scratch scratch, Stream stream) {
  if (OpError error = CheckMatrix(args.router); !error.ok()) return error;
  const int64_t rows = args.rows, hidden = args.router.k, experts = args.router.n;
  if (args.chosen < 1 || args.chosen > experts) return {"more experts chosen than there are"};
  if (args.groups < 1 || args.groups > kMaxExpertGroups || experts % args.groups != 0 ||
      args.best_groups < 1 || args.best_groups > args.groups ||
      args.chosen > experts / args.groups * args.best_groups) {
    return {"expert groups do not divide the experts, or hold fewer than are chosen"};
  }
  ScratchCutter cut(scratch);
  float* matmul = TakeMatmulScratch(cut);
  float* logits = cut.Take<float>(rows * experts);
  float* choices = cut.Take<float>(rows * experts);
  if (!cut.ok()) return kScratchTooSmall;

  float* normed = static_cast<float*>(args.normed);
  NormRows(static_cast<const float*>(args.x), nullptr, args.norm, args.eps, rows, hidden, normed);
  const MatmulInput in = {normed, hidden, nullptr, rows};
  const MatmulOutput out = {logits, experts, 0, args.bias, false};
  pool_.ParallelFor(experts, MatmulGrain(rows, hidden),
                    [&](int thread, int64_t begin, int64_t end) {
                      MatmulColumns(in, args.router, 0, begin, end, out, OfThread(matmul, thread));
                    });
  pool_.ParallelFor(rows, 1024 / experts + 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      RouteRow(args, logits + r * experts, choices + r * experts, args.ids + r * args.chosen,
               args.weights + r * args.chosen);
    }
  });
  return {};
}

}  // namespace switchyard::kernels
