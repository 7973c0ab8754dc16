// gpu_bench: the ops of a Llama-3.1-8B step, bf16, in CUDA graphs, beside the read limit of the
// run.

#include <cstdio>
#include <string>

#include "tests/gpu/bench_chain.h"
#include "tests/gpu/bench_read.h"

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

void Decode(cudaStream_t stream) {
  Chain chain(1, 1, 512, stream);
  const double limit = ReadLimit(chain.weights(), int64_t{8} << 30, stream);
  std::printf("read limit %.3f TB/s\n", limit * 1e-12);
  for (const bool programmatic : {true, false}) {
    for (const int warps : {8, 16}) {
      const auto ops = kernels::MakeCudaOps({programmatic, warps}, nullptr);
      const auto seconds = [&](const Parts& parts) {
        return MedianSeconds(stream, 30, true, [&] { chain.Launch(*ops, parts); });
      };
      const auto rate = [&](const char* name, const Parts& parts) {
        const double time = seconds(parts), bytes = chain.ProductBytes(parts);
        std::printf("  %-22s %8.1f us  %6.3f TB/s  %5.1f%%\n", name, time * 1e6,
                    bytes / time * 1e-12, 100 * bytes / time / limit);
      };
      std::printf("batch 1, %d rows a block, programmatic launch %s\n", warps,
                  programmatic ? "on" : "off");
      rate("the 129 products", Chain::Products());
      rate("the step, 512 context", Chain::Step());
      for (const Named& op : kOps) rate(op.name, op.parts);
    }
  }
}

void Batches(cudaStream_t stream) {
  const auto ops = kernels::MakeCudaOps({}, nullptr);
  for (const int32_t batch : {2, 4, 8, 16, 32, 64}) {
    Chain chain(batch, batch, 1024, stream);
    const double limit = ReadLimit(chain.weights(), int64_t{8} << 30, stream);
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
  }
  Chain chain(1, 1, 32768, stream);
  const double limit = ReadLimit(chain.weights(), int64_t{8} << 30, stream);
  const double attention =
      MedianSeconds(stream, 20, true, [&] { chain.Launch(*ops, {.attention = true}); });
  std::printf("attention, one sequence of 32k: %.1f us, %.1f%% of the read limit\n",
              attention * 1e6, 100 * chain.KvBytes() / attention / limit);
}

void Prefill(cudaStream_t stream) {
  const auto ops = kernels::MakeCudaOps({}, nullptr);
  for (const int32_t rows : {2048, 8192}) {
    Chain chain(rows, 1, rows, stream);
    std::printf("prefill of %d\n", rows);
    const auto report = [&](const char* name, const Parts& parts) {
      const double time = MedianSeconds(stream, 5, true, [&] { chain.Launch(*ops, parts); });
      std::printf("  %-22s %9.1f us  %6.1f TFLOP/s  %8.0f rows/s\n", name, time * 1e6,
                  chain.ProductFlops(parts) / time * 1e-12, rows / time);
    };
    report("the step", Chain::Step());
    for (const Named& op : kOps) report(op.name, op.parts);
  }
}

}  // namespace
}  // namespace switchyard::bench

int main() {
  using namespace switchyard::bench;
  cudaStream_t stream;
  Check(cudaStreamCreate(&stream), "stream");
  Decode(stream);
  std::fflush(stdout);
  Batches(stream);
  std::fflush(stdout);
  Prefill(stream);
  return 0;
}
