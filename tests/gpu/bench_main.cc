// gpu_bench: the ops of a Llama-3.1-8B step in CUDA graphs, experts of real shapes, and whole steps
// of real models, beside the read limit of the run.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "tests/gpu/bench_chain.h"
#include "tests/gpu/bench_deployed.h"
#include "tests/gpu/bench_moe.h"
#include "tests/gpu/bench_read.h"
#include "tests/gpu/bench_shapes.h"

namespace switchyard::bench {
namespace {

using Parts = Chain::Parts;

struct Named {
  const char* name;
  Parts parts;
};
const Named kOps[] = {{"AttentionInput x 32", {.attention_input = true}},
                      {"Linear (o) x 32", {.output = true}},
                      {"MlpInput x 32", {.mlp = true}},
                      {"Linear (down) x 32", {.down = true}},
                      {"Head", {.head = true}},
                      {"Attention x 32", {.attention = true}},
                      {"Embed, Sample", {.embed = true, .sample = true}}};

void Rates(const Chain& chain, const char* what, double limit,
           const std::function<double(const Parts&)>& seconds) {
  std::printf("%s\n", what);
  const auto rate = [&](const char* name, const Parts& parts) {
    const double time = seconds(parts), bytes = chain.ProductBytes(parts);
    std::printf("  %-22s %8.1f us  %6.3f TB/s  %5.1f%%\n", name, time * 1e6, bytes / time * 1e-12,
                100 * bytes / time / limit);
  };
  rate("the 129 products", Chain::Products());
  rate("the step", Chain::Step());
  for (const Named& op : kOps) rate(op.name, op.parts);
}

// Batch 1, 512 tokens of context.
void Decode(double limit, cudaStream_t stream) {
  for (const WeightFormat& format : {kBf16Weights, kFp8Weights, kFp8BlockWeights, kInt4Weights,
                                     kInt4ZeroWeights, kMxfp4Weights}) {
    Chain chain(kLlama8B, AllOf(format), 1, 1, 512, stream);
    const auto ops = kernels::MakeCudaOps({}, nullptr);
    Rates(chain, (std::string("batch 1, ") + format.name).c_str(), limit, [&](const Parts& parts) {
      return MedianSeconds(stream, 30, true, [&] { chain.Launch(*ops, parts); });
    });
  }
}

void Batches(const WeightFormat& format, double limit, cudaStream_t stream) {
  const auto ops = kernels::MakeCudaOps({}, nullptr);
  std::printf("%s\n", format.name);
  for (const int32_t batch : {2, 3, 4, 8, 16, 32, 64, 128}) {
    Chain chain(kLlama8B, AllOf(format), batch, batch, 1024, stream);
    const auto seconds = [&](const Parts& parts) {
      return MedianSeconds(stream, 10, true, [&] { chain.Launch(*ops, parts); });
    };
    const double products = seconds(Chain::Products()), step = seconds(Chain::Step());
    const double attention = seconds({.attention = true});
    const double bytes = chain.ProductBytes(Chain::Products());
    std::printf(
        "batch %2d: products %7.1f us %5.1f%%, step of 1024 context %7.1f us %5.1f%%, "
        "attention %6.1f us %5.1f%%\n",
        batch, products * 1e6, 100 * bytes / products / limit, step * 1e6,
        100 * (bytes + chain.KvBytes()) / step / limit, attention * 1e6,
        100 * chain.KvBytes() / attention / limit);
    for (const Named& op : kOps) {
      if (batch == 4 || batch == 16 || batch == 64)
        std::printf("  %-22s %8.1f us\n", op.name, seconds(op.parts) * 1e6);
    }
  }
}

void LongAttention(double limit, cudaStream_t stream) {
  const auto ops = kernels::MakeCudaOps({}, nullptr);
  for (const kernels::DType kv : {kernels::DType::kBF16, kernels::DType::kF8E4M3}) {
    for (const int32_t sequences : {1, 64}) {
      const int32_t context = sequences == 1 ? 32768 : 1024;
      Chain chain(kLlama8B, AllOf(kBf16Weights), sequences, sequences, context, stream, kv);
      const double attention =
          MedianSeconds(stream, 20, true, [&] { chain.Launch(*ops, {.attention = true}); });
      std::printf("attention, %2d of %5d, KV as %s: %.1f us, %.1f%% of the read limit\n", sequences,
                  context, kernels::DTypeName(kv), attention * 1e6,
                  100 * chain.KvBytes() / attention / limit);
    }
  }
}

void Sampling(cudaStream_t stream) {
  const auto ops = kernels::MakeCudaOps({}, nullptr);
  for (const int32_t batch : {1, 64}) {
    Chain chain(kLlama8B, AllOf(kBf16Weights), batch, batch, 1024, stream);
    const auto report = [&](const char* name, int32_t top_k, float top_p) {
      chain.Filter(top_k, top_p);
      const double sample =
          MedianSeconds(stream, 10, true, [&] { chain.Launch(*ops, {.sample = true}); });
      std::printf("sampling, %2d rows, %-21s %8.1f us\n", batch, name, sample * 1e6);
    };
    chain.Launch(*ops, {.head = true});
    report("plain", 0, 1);
    report("top-k 50", 50, 1);
    report("top-p 0.9", 0, 0.9f);
    report("top-k 50, top-p 0.9", 50, 0.9f);
    report("top-k 5000, top-p 0.9", 5000, 0.9f);
  }
}

// The rate of cuBLAS, by a product of 8192 x 8192 x 8192; of our own kernels without it.
double ProductRate(kernels::Ops& ops, cudaStream_t stream) {
  constexpr int32_t kSize = 8192;
  constexpr int64_t kCount = int64_t{kSize} * kSize;
  kernels::ScratchShape shape;
  shape.rows = shape.hidden = shape.intermediate = kSize;
  kernels::Scratch scratch;
  scratch.bytes = ops.ScratchBytes(shape);
  void* data = nullptr;
  Check(cudaMalloc(&data, kCount * 6), "allocate");
  Check(cudaMalloc(&scratch.data, scratch.bytes), "allocate");
  FillRandom(data, 2 * kCount, 1.0f, 9, stream);
  char* bytes = static_cast<char*>(data);
  const kernels::Matrix w = {bytes, kernels::DType::kBF16, kSize, kSize};
  const double time = MedianSeconds(stream, 10, true, [&] {
    if (!ops.Linear({kSize, bytes + 2 * kCount, w, nullptr, false, bytes + 4 * kCount}, scratch,
                    stream)
             .ok()) {
      std::exit(1);
    }
  });
  cudaFree(data);
  cudaFree(scratch.data);
  return 2.0 * kSize * kCount / time;
}

void Prefill(const WeightFormat& format, const kernels::CudaOptions& options, cudaStream_t stream) {
  kernels::OpError error;
  const auto ops = kernels::MakeCudaOps(options, &error);
  if (ops == nullptr) {
    std::printf("%s\n", error.message);
    return;
  }
  const double limit = ProductRate(*ops, stream);
  std::printf("products by %s: 8192^3 at %.1f TFLOP/s\n",
              *ops->matrix_library() != 0 ? ops->matrix_library() : "our own kernels",
              limit * 1e-12);
  for (const int32_t rows : {2048, 8192}) {
    Chain chain(kLlama8B, AllOf(format), rows, 1, rows, stream);
    std::printf("prefill of %d, %s%s\n", rows, format.name,
                options.fast_prefill ? ", fast_prefill" : "");
    const auto report = [&](const char* name, const Parts& parts) {
      const double time = MedianSeconds(stream, 5, true, [&] { chain.Launch(*ops, parts); });
      const double flops =
          chain.ProductFlops(parts) + (parts.attention ? chain.AttentionFlops() : 0);
      std::printf("  %-22s %9.1f us  %6.1f TFLOP/s %5.1f%%  %8.0f rows/s\n", name, time * 1e6,
                  flops / time * 1e-12, 100 * flops / time / limit, rows / time);
    };
    report("the step", Chain::Step());
    for (const Named& op : kOps) report(op.name, op.parts);
    std::fflush(stdout);
  }
}

// As it is; of bf16 without cuBLASLt too, of fp8 with fp8 activations too.
void Prefill(const WeightFormat& format, cudaStream_t stream) {
  kernels::CudaOptions options;
  Prefill(format, options, stream);
  options.cublas = format.dtype != kernels::DType::kBF16;
  options.fast_prefill = format.dtype == kernels::DType::kF8E4M3;
  if (!options.cublas || options.fast_prefill) Prefill(format, options, stream);
}

// What batch_invariant costs.
void Invariance(const WeightFormat& format, cudaStream_t stream) {
  kernels::CudaOptions options;
  const auto plain = kernels::MakeCudaOps(options, nullptr);
  options.batch_invariant = true;
  const auto invariant = kernels::MakeCudaOps(options, nullptr);
  struct Step {
    int32_t rows, sequences, context;
  };
  for (const Step& s :
       {Step{1, 1, 1024}, Step{16, 16, 1024}, Step{1, 1, 32768}, Step{2048, 1, 2048}}) {
    Chain chain(kLlama8B, AllOf(format), s.rows, s.sequences, s.context, stream);
    const auto report = [&](const char* name, const Parts& parts) {
      const auto seconds = [&](kernels::Ops& ops) {
        return MedianSeconds(stream, s.rows > 100 ? 5 : 10, true,
                             [&] { chain.Launch(ops, parts); });
      };
      const double before = seconds(*plain), after = seconds(*invariant);
      std::printf("%s, %4d rows, context %5d, %-11s %9.1f us, batch_invariant %9.1f us, x %.2f\n",
                  format.name, s.rows, s.context, name, before * 1e6, after * 1e6, after / before);
    };
    report("the step", Chain::Step());
    report("products", Chain::Products());
    report("attention", {.attention = true});
    std::fflush(stdout);
  }
}

// Between decode and prefill, with and without cuBLASLt.
void FewRows(const WeightFormat& format, cudaStream_t stream) {
  kernels::CudaOptions options;
  const auto with = kernels::MakeCudaOps(options, nullptr);
  options.cublas = false;
  const auto without = kernels::MakeCudaOps(options, nullptr);
  for (const int32_t rows : {17, 32, 48, 64, 65, 128, 256, 512}) {
    Chain chain(kLlama8B, AllOf(format), rows, 1, rows, stream);
    const auto seconds = [&](kernels::Ops& ops) {
      return MedianSeconds(stream, 5, true, [&] { chain.Launch(ops, Chain::Products()); });
    };
    const double first = seconds(*with), second = seconds(*without);
    std::printf("%s, %4d rows, products: %8.1f us with cuBLASLt, %8.1f us without\n", format.name,
                rows, first * 1e6, second * 1e6);
  }
}

}  // namespace
}  // namespace switchyard::bench

// Parts by name, all if there is none: decode, batches, attention, sampling, prefill, few-rows,
// invariance, experts; with the names bf16, fp8 and int4 too, of those weights only. By name alone,
// since it fills the device's memory seven times: shapes, a decode step of each model of
// deploy/96gb; names behind it pick some (`gpu_bench shapes qwen3-32b`).
int main(int argc, char** argv) {
  using namespace switchyard::bench;
  char** const end = argv + argc;
  const auto find = [&](const char* part) {
    return std::find_if(argv + 1, end, [&](char* arg) { return std::strcmp(arg, part) == 0; });
  };
  char** const shapes = find("shapes");  // what follows are names of models
  const auto named = [&](const char* part) { return find(part) < shapes; };
  const auto wants = [&](const char* part) {
    std::fflush(stdout);
    return argc == 1 || named(part);
  };
  std::vector<WeightFormat> formats;
  if (named("bf16")) formats.push_back(kBf16Weights);
  if (named("fp8")) formats.push_back(kFp8Weights);
  if (named("int4")) formats.push_back(kInt4Weights);
  if (formats.empty()) formats = {kBf16Weights, kFp8Weights, kInt4Weights};
  cudaStream_t stream;
  Check(cudaStreamCreate(&stream), "stream");
  const double limit = ReadLimit(stream);
  std::printf("read limit %.3f TB/s\n", limit * 1e-12);
  if (wants("decode")) Decode(limit, stream);
  if (wants("batches")) {
    for (const WeightFormat& format : formats) Batches(format, limit, stream);
  }
  if (wants("attention")) LongAttention(limit, stream);
  if (wants("sampling")) Sampling(stream);
  if (wants("prefill")) {
    for (const WeightFormat& format : formats) Prefill(format, stream);
  }
  for (const WeightFormat& format : formats) {
    if (wants("few-rows")) FewRows(format, stream);
    if (wants("invariance")) Invariance(format, stream);
  }
  if (wants("experts")) Experts(limit, stream);
  std::fflush(stdout);
  if (shapes != end) Deployed({shapes + 1, end}, limit, stream);
  return 0;
}
