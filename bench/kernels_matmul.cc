// Matrix products: decode against the memory read rate, prefill against oneDNN. The two sides are
// measured in turns, so that a busy machine slows both.

#include <string>
#include <vector>

#include "bench/kernels.h"

namespace switchyard::bench {
namespace {

using kernels::DType;
using kernels::Matrix;

// The shape of Llama-3.2-1B.
constexpr int64_t kHidden = 2048, kInner = 8192, kQkv = 3072, kVocabulary = 128256;
constexpr int kLayers = 16;

// Matrices one after the other in the buffer, as in an image.
class Layout {
 public:
  explicit Layout(const Buffer& buffer) : at_(buffer.data()) {}
  Matrix Next(int64_t n, int64_t k) {
    const Matrix matrix = {at_, DType::kBF16, n, k};
    at_ += (n * k * 2 + 255) / 256 * 256;
    return matrix;
  }

 private:
  const char* at_;
};

struct Layer {
  Matrix qkv, o, gate_up, down;
};

Buffer ScratchFor(kernels::Ops& ops, int32_t rows) {
  kernels::ScratchShape shape;
  shape.rows = shape.logit_rows = rows;
  shape.hidden = kHidden;
  shape.intermediate = kInner;
  return Buffer(ops.ScratchBytes(shape));
}

}  // namespace

void BenchDecodeMatrices(KernelBench& bench) {
  Layout layout(bench.weights);
  std::vector<Layer> layers;
  for (int i = 0; i < kLayers; ++i) {
    layers.push_back({layout.Next(kQkv, kHidden), layout.Next(kHidden, kHidden),
                      layout.Next(2 * kInner, kHidden), layout.Next(kHidden, kInner)});
  }
  const Matrix head = layout.Next(kVocabulary, kHidden);
  const int64_t layer_weights = kHidden * (kQkv + kHidden + 3 * kInner);
  const double bytes = 2.0 * static_cast<double>(kLayers * layer_weights + kVocabulary * kHidden);

  for (const int32_t rows : {1, 2, 4, 8, 16}) {
    const Buffer memory = ScratchFor(bench.ops, rows);
    const kernels::Scratch scratch = {memory.data(), memory.bytes()};
    const Floats x(rows * kHidden, 0.5f), wide(rows * kInner), logits(rows * kVocabulary);
    const Floats norm(kHidden, 1.0f);
    std::vector<int32_t> row(rows);
    const auto step = [&] {
      for (const Layer& layer : layers) {
        (void)bench.ops.Linear({rows, x.data(), layer.qkv, nullptr, false, wide.data()}, scratch,
                               nullptr);
        (void)bench.ops.Linear({rows, wide.data(), layer.o, nullptr, true, x.data()}, scratch,
                               nullptr);
        kernels::MlpInputArgs mlp;
        mlp.rows = rows;
        mlp.x = x.data();
        mlp.norm = norm.data();
        mlp.eps = 1e-6f;
        mlp.gate_up = layer.gate_up;
        mlp.out = wide.data();
        (void)bench.ops.MlpInput(mlp, scratch, nullptr);
        (void)bench.ops.Linear({rows, wide.data(), layer.down, nullptr, true, x.data()}, scratch,
                               nullptr);
      }
      (void)bench.ops.Head({rows, row.data(), x.data(), norm.data(), 1e-6f, head, 0, logits.data()},
                           scratch, nullptr);
    };
    step();
    std::vector<double> rates, limits;
    for (int i = 0; i < bench.runs; ++i) {
      limits.push_back(MeasureRead(bench.weights, bench.threads));
      const double start = Now();
      step();
      rates.push_back(1e-9 * bytes / (Now() - start));
    }
    bench.report.Add("weights of a 1.2B bf16 step, batch " + std::to_string(rows), Median(rates),
                     "GB/s", Median(limits), "memory read");
  }
}

void BenchPrefillMatrices(KernelBench& bench) {
  constexpr int32_t kRows = 512;
  const Buffer memory = ScratchFor(bench.ops, kRows);
  const kernels::Scratch scratch = {memory.data(), memory.bytes()};
  const struct {
    int64_t n, k;
  } shapes[] = {{kQkv, kHidden}, {kHidden, kHidden}, {2 * kInner, kHidden}, {kHidden, kInner}};
  double ours = 0, theirs = 0;
  for (const auto& [n, k] : shapes) {
    const Matrix w = Layout(bench.weights).Next(n, k);
    const Floats x(kRows * k, 0.5f), y(kRows * n);
    const double flops = 2.0 * kRows * static_cast<double>(n * k);
    MeasureSgemm(kRows, n, k);
    std::vector<double> rates, limits;
    for (int i = 0; i < bench.runs; ++i) {
      limits.push_back(MeasureSgemm(kRows, n, k));
      const double rest = Now() + 0.01;  // until oneDNN's threads sleep
      while (Now() < rest) {
      }
      const double start = Now();
      (void)bench.ops.Linear({kRows, x.data(), w, nullptr, false, y.data()}, scratch, nullptr);
      rates.push_back(1e-9 * flops / (Now() - start));
    }
    bench.report.Add("512 rows by " + std::to_string(n) + " x " + std::to_string(k) + " bf16",
                     Median(rates), "GFLOP/s", Median(limits), "oneDNN sgemm");
    ours += flops / Median(rates);
    theirs += Median(limits) > 0 ? flops / Median(limits) : 0;
  }
  const double flops = 2.0 * kRows * static_cast<double>(kHidden * (kQkv + kHidden + 3 * kInner));
  bench.report.Add("512 rows by a layer's matrices", flops / ours, "GFLOP/s",
                   theirs > 0 ? flops / theirs : 0, "oneDNN sgemm");
}

}  // namespace switchyard::bench
