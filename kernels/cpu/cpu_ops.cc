// What the ops share: construction, the size of the scratch, and the norm in front of a product.

#include "kernels/cpu/cpu_ops.h"

#include <algorithm>

#include "kernels/cpu/matmul.h"
#include "kernels/cpu/vectors.h"

namespace switchyard::kernels {

CpuOps::CpuOps(int threads)
    : pool_(threads), matmul_floats_((MatmulScratchFloats() + 15) / 16 * 16) {}

std::unique_ptr<Ops> MakeCpuOps(int threads) { return std::make_unique<CpuOps>(threads); }

int64_t CpuOps::ScratchBytes(const ScratchShape& s) const {
  const int64_t rows = s.rows, hidden = s.hidden, threads = pool_.threads();
  const int64_t heads = s.q_heads + 2 * int64_t{s.kv_heads};
  int64_t most = 0;
  const auto op = [&](auto take) {
    ScratchCutter cut;
    take(cut);
    most = std::max(most, cut.used());
  };
  op([&](ScratchCutter& cut) {  // AttentionInput
    if (rows == 0) return;
    TakeMatmulScratch(cut);
    cut.Take<float>(rows * hidden);
    cut.Take<float>(rows * heads * s.head_dim);
  });
  op([&](ScratchCutter& cut) {
    AttentionScratch().Take(cut, threads, rows, s.head_dim, s.context);
  });
  op([&](ScratchCutter& cut) {  // MlpInput, and Linear
    if (rows == 0) return;
    TakeMatmulScratch(cut);
    cut.Take<float>(rows * hidden);
    cut.Take<float>(rows * s.intermediate);
  });
  op([&](ScratchCutter& cut) {  // MoeRoute
    if (rows == 0) return;
    TakeMatmulScratch(cut);
    cut.Take<float>(rows * s.experts);
    cut.Take<float>(rows * s.experts);
  });
  op([&](ScratchCutter& cut) {
    if (rows == 0) return;
    TakeMatmulScratch(cut);
    MoeScratch().Take(cut, rows, s.chosen, s.experts, s.expert_intermediate, hidden);
  });
  op([&](ScratchCutter& cut) {  // Head
    if (s.logit_rows == 0) return;
    TakeMatmulScratch(cut);
    cut.Take<float>(s.logit_rows * hidden);
  });
  op([&](ScratchCutter& cut) { SampleScratch().Take(cut, threads, s.vocabulary); });
  return most;
}

void CpuOps::NormRows(const float* x, const int32_t* index, const float* norm, float eps,
                      int64_t rows, int64_t width, float* out) {
  pool_.ParallelFor(rows, 16384 / width + 1, [&](int, int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      RmsNorm(x + (index != nullptr ? index[r] : r) * width, norm, eps, width, out + r * width);
    }
  });
}

}  // namespace switchyard::kernels
