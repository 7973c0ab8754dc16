// The ops that are not plain matrix products: attention, experts, sampling. Each is small beside
// the weights of a step; this shows by how much.

#include <string>
#include <vector>

#include "bench/kernels.h"

namespace switchyard::bench {
namespace {

using kernels::DType;
using kernels::Scratch;

constexpr int32_t kHeads = 32, kKvHeads = 8, kDim = 128, kBlockTokens = 16;

// One sequence of `context` tokens in slot 0, `rows` of them in this step.
struct Sequence {
  Sequence(int32_t context, int32_t rows)
      : blocks(context / kBlockTokens + 1),
        pool(blocks * kBlockTokens * int64_t{kKvHeads} * kDim * 2, 0.01f),
        slot(rows),
        position(rows),
        table(blocks),
        length{context},
        first{0, rows} {
    for (int32_t i = 0; i < rows; ++i) position[i] = context - rows + i;
    for (int32_t i = 0; i < blocks; ++i) table[i] = i;
    const int64_t half = int64_t{kBlockTokens} * kKvHeads * kDim * 4;
    kv = {pool.data(), table.data(), blocks, kBlockTokens, 2 * half, 0, half, DType::kF32};
    step = {rows, 1, rows, slot.data(), position.data(), slot.data(), first, length};
  }
  int32_t blocks;
  Floats pool;
  std::vector<int32_t> slot, position, table;
  int32_t length[1];
  int32_t first[2];
  kernels::KvView kv;
  kernels::StepRows step;
};

void BenchAttention(KernelBench& bench, int32_t context, int32_t rows) {
  const Sequence sequence(context, rows);
  const Floats q(int64_t{rows} * kHeads * kDim, 0.1f), out(int64_t{rows} * kHeads * kDim);
  kernels::ScratchShape shape;
  shape.rows = rows;
  shape.q_heads = kHeads;
  shape.kv_heads = kKvHeads;
  shape.head_dim = kDim;
  shape.context = context;
  const Buffer memory(bench.ops.ScratchBytes(shape));
  kernels::AttentionArgs args;
  args.rows = sequence.step;
  args.q = q.data();
  args.q_heads = kHeads;
  args.kv_heads = kKvHeads;
  args.head_dim = kDim;
  args.scale = 0.09f;
  args.kv = sequence.kv;
  args.out = out.data();
  const double seconds = MedianSeconds(bench.runs, [&] {
    (void)bench.ops.Attention(args, {memory.data(), memory.bytes()}, nullptr);
  });
  const std::string name = "attention, " + std::to_string(rows) + " rows at " +
                           std::to_string(context) + ", 32/8 heads of 128";
  if (rows == 1) {
    const double bytes = 2.0 * 4 * context * kKvHeads * kDim;
    bench.report.Add(name, 1e-9 * bytes / seconds, "GB/s",
                     MeasureRead(bench.weights, bench.threads), "memory read");
  } else {
    const double keys = static_cast<double>(rows) * (context - 0.5 * rows);
    bench.report.Add(name, 4e-9 * keys * kHeads * kDim / seconds, "GFLOP/s",
                     MeasureSgemm(512, 2048, 2048), "oneDNN sgemm");
  }
}

// The experts of one layer of a 30B-A3B, at batch 1: 8 of 128.
void BenchExperts(KernelBench& bench) {
  constexpr int32_t kHidden = 2048, kInner = 768, kExperts = 128, kChosen = 8;
  const Floats x(kHidden, 0.5f), out(kHidden);
  std::vector<float> weights(kChosen, 0.125f);
  std::vector<int32_t> ids(kChosen);
  kernels::ScratchShape shape;
  shape.rows = 1;
  shape.hidden = kHidden;
  shape.experts = kExperts;
  shape.chosen = kChosen;
  shape.expert_intermediate = kInner;
  const Buffer memory(bench.ops.ScratchBytes(shape));
  kernels::MoeExpertsArgs args;
  args.rows = 1;
  args.x = x.data();
  args.ids = ids.data();
  args.weights = weights.data();
  args.chosen = kChosen;
  args.gate_up = {bench.weights.data(), DType::kBF16, 2 * kInner, kHidden, kExperts};
  args.down = {bench.weights.data() + 2 * int64_t{kExperts} * 2 * kInner * kHidden, DType::kBF16,
               kHidden, kInner, kExperts};
  args.out = out.data();
  int32_t turn = 0;
  const double seconds = MedianSeconds(8 * bench.runs, [&] {
    for (int32_t i = 0; i < kChosen; ++i) ids[i] = (turn * 29 + i * 16) % kExperts;
    ++turn;
    (void)bench.ops.MoeExperts(args, {memory.data(), memory.bytes()}, nullptr);
  });
  const double bytes = 2.0 * kChosen * 3 * kInner * kHidden;
  bench.report.Add("8 of 128 experts, batch 1, bf16", 1e-9 * bytes / seconds, "GB/s",
                   MeasureRead(bench.weights, bench.threads), "memory read");
}

void BenchSampling(KernelBench& bench) {
  constexpr int32_t kVocabulary = 262144, kStride = 64;
  const Floats logits(kVocabulary);
  uint32_t state = 1;
  for (int32_t i = 0; i < kVocabulary; ++i) {  // a sum of four: nearly normal, deviation 2.3
    float sum = 0;
    for (int j = 0; j < 4; ++j) {
      state = state * 1664525u + 1013904223u;
      sum += static_cast<float>(state >> 8) * 0x1p-22f - 2;
    }
    logits.data()[i] = sum;
  }
  kernels::ScratchShape shape;
  shape.vocabulary = kVocabulary;
  const Buffer memory(bench.ops.ScratchBytes(shape));
  const Scratch scratch = {memory.data(), memory.bytes()};
  std::vector<int32_t> history(kStride);
  int32_t id;
  const auto time = [&](const char* name, const kernels::SamplingRow& row) {
    const double seconds = MedianSeconds(bench.runs, [&] {
      (void)bench.ops.Sample({1, kVocabulary, logits.data(), &row, {history.data(), kStride}, &id},
                             scratch, nullptr);
    });
    bench.report.Add(std::string("sample of 262144, ") + name, 1e6 * seconds, "us");
  };
  kernels::SamplingRow row;
  time("no filter", row);
  row.top_k = 50;
  row.top_p = 0.9f;
  time("top-k 50, top-p 0.9", row);
  row.top_k = 0;
  time("top-p 0.9", row);
  row.temperature = 0;
  time("greedy", row);
  float logprob, top[20];
  int32_t top_ids[20];
  const double seconds = MedianSeconds(bench.runs, [&] {
    (void)bench.ops.Logprobs({1,
                              kVocabulary,
                              logits.data(),
                              &row,
                              {history.data(), kStride},
                              20,
                              &logprob,
                              top_ids,
                              top},
                             scratch, nullptr);
  });
  bench.report.Add("log-probabilities of 262144, top 20", 1e6 * seconds, "us");
}

// An op that does next to nothing, on all threads: the price of fork and join.
void BenchForkAndJoin(KernelBench& bench) {
  constexpr int32_t kRows = 64, kWidth = 2048;
  const Floats x(kRows * kWidth, 0.5f), residual(kRows * kWidth), norm(kWidth, 1.0f);
  const double seconds = MedianSeconds(200, [&] {
    (void)bench.ops.PostNormAdd({kRows, kWidth, x.data(), norm.data(), 1e-6f, residual.data()}, {},
                                nullptr);
  });
  bench.report.Add("post norm, 64 rows of 2048", 1e6 * seconds, "us");
}

}  // namespace

void BenchOtherOps(KernelBench& bench) {
  BenchAttention(bench, 32768, 1);
  BenchAttention(bench, 512, 512);
  BenchAttention(bench, 8192, 256);
  BenchExperts(bench);
  BenchForkAndJoin(bench);
  BenchSampling(bench);
}

}  // namespace switchyard::bench
