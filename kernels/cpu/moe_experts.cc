// out (+)= sum over a row's K experts of weight * down_e activation(gate_up_e x), in the order of
// ids.
//
// Entries (row, choice) are sorted by expert, so that each chosen expert's weights are read once,
// and an expert that nobody chose is not touched. Every thread owns a range of the columns of
// *every* expert: balanced however the rows are spread. Two barriers: after gate, up and
// activation, and after down. The sum over a row's experts comes last, from buffers of their own,
// in the order of ids.
//
// Reached on two busy cores: 8 of 128 experts (768 by 2048, bf16) at batch 1 at 71-87% of the read
// rate.

#include <algorithm>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/vectors.h"
#include "kernels/shared_expert.h"

namespace switchyard::kernels {

void MoeScratch::Take(ScratchCutter& cut, int64_t rows, int64_t chosen, int64_t experts,
                      int64_t intermediate, int64_t hidden) {
  const int64_t entries = rows * chosen;
  first = cut.Take<int32_t>(experts + 1);
  fill = cut.Take<int32_t>(experts);
  token = cut.Take<int32_t>(entries);
  entry = cut.Take<int32_t>(entries);
  gate = cut.Take<float>(entries * intermediate);
  up = cut.Take<float>(entries * intermediate);
  down = cut.Take<float>(entries * hidden);
}

namespace {

// Counting sort of the entries by expert. False if an id is out of range.
bool SortByExpert(const MoeExpertsArgs& args, int64_t experts, const MoeScratch& s) {
  const int64_t entries = int64_t{args.rows} * args.chosen;
  std::fill_n(s.first, experts + 1, 0);
  for (int64_t i = 0; i < entries; ++i) {
    if (args.ids[i] < 0 || args.ids[i] >= experts) return false;
    ++s.first[args.ids[i] + 1];
  }
  for (int64_t e = 0; e < experts; ++e) s.first[e + 1] += s.first[e];
  std::copy_n(s.first, experts, s.fill);
  for (int64_t i = 0; i < entries; ++i) {
    const int32_t at = s.fill[args.ids[i]]++;
    s.token[at] = static_cast<int32_t>(i / args.chosen);
    s.entry[i] = at;
  }
  return true;
}

}  // namespace

OpError CpuOps::MoeExperts(const MoeExpertsArgs& args, Scratch scratch, Stream stream) {
  if (OpError error = CheckMatrix(args.gate_up); !error.ok()) return error;
  if (OpError error = CheckMatrix(args.down); !error.ok()) return error;
  const int64_t rows = args.rows, chosen = args.chosen, experts = args.gate_up.batch;
  const int64_t hidden = args.gate_up.k, intermediate = args.gate_up.n / 2;
  ScratchCutter cut(scratch);
  float* matmul = TakeMatmulScratch(cut);
  MoeScratch s;
  s.Take(cut, rows, chosen, experts, intermediate, hidden);
  if (!cut.ok()) return kScratchTooSmall;
  if (!SortByExpert(args, experts, s)) return {"an expert id is out of range"};

  const auto for_experts = [&](const auto& f) {
    for (int64_t e = 0; e < experts; ++e) {
      if (s.first[e + 1] > s.first[e]) f(e, s.first[e], s.first[e + 1] - s.first[e]);
    }
  };
  const float* x = static_cast<const float*>(args.x);
  const int64_t work = MatmulGrain(rows * chosen, hidden);
  pool_.ParallelFor(intermediate, work, [&](int thread, int64_t begin, int64_t end) {
    float* own = OfThread(matmul, thread);
    for_experts([&](int64_t e, int64_t first, int64_t count) {
      const float* bias =
          args.gate_up_bias != nullptr ? args.gate_up_bias + e * 2 * intermediate : nullptr;
      const MatmulInput in = {x, hidden, s.token + first, count};
      float* gate = s.gate + first * intermediate;
      float* up = s.up + first * intermediate;
      MatmulColumns(in, args.gate_up, e, begin, end, {gate, intermediate, 0, bias, false}, own);
      MatmulColumns(in, args.gate_up, e, intermediate + begin, intermediate + end,
                    {up, intermediate, intermediate, bias, false}, own);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t at = i * intermediate + begin;
        Activate(args.activation, gate + at, up + at, end - begin);
      }
    });
  });

  float* out = static_cast<float*>(args.out);
  const int64_t down_work = MatmulGrain(rows * chosen, intermediate);
  pool_.ParallelFor(hidden, down_work, [&](int thread, int64_t begin, int64_t end) {
    float* own = OfThread(matmul, thread);
    for_experts([&](int64_t e, int64_t first, int64_t count) {
      const float* bias = args.down_bias != nullptr ? args.down_bias + e * hidden : nullptr;
      const MatmulInput in = {s.gate + first * intermediate, intermediate, nullptr, count};
      MatmulColumns(in, args.down, e, begin, end, {s.down + first * hidden, hidden, 0, bias, false},
                    own);
    });
    // The sum needs only this thread's columns.
    for (int64_t r = 0; r < rows; ++r) {
      float* to = out + r * hidden + begin;
      if (!args.accumulate) std::fill_n(to, end - begin, 0.0f);
      for (int64_t c = 0; c < chosen; ++c) {
        const int64_t i = r * chosen + c;
        AddScaled(s.down + s.entry[i] * hidden + begin, args.weights[i], end - begin, to);
      }
    }
  });
  return AddSharedExpert(*this, args, scratch, stream);
}

}  // namespace switchyard::kernels
