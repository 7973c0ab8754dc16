// `kernels`: every hot op beside the limit that binds it, measured in the same run.

#include <CLI/CLI.hpp>
#include <cstring>

#include "bench/kernels.h"
#include "bench/subcommand.h"
#include "common/usable_cores.h"

namespace switchyard::bench {
namespace {

struct {
  int threads = 0;
  int runs = 7;
  bool json = false;
  std::string only;
} options;

void AddOptions(CLI::App& app) {
  app.add_option("--threads", options.threads, "0: one per usable core");
  app.add_option("--runs", options.runs, "each figure is the median of so many")
      ->check(CLI::PositiveNumber);
  app.add_option("--only", options.only, "decode, prefill or other");
  app.add_flag("--json", options.json, "one JSON document");
}

int Run() {
  const int threads = options.threads > 0 ? options.threads : UsableCores();
  const Buffer weights(int64_t{2600} << 20);
  // Numbers like weights: bf16 between 2^-7 and 2^-6, both signs.
  TimeThreads(threads, [&](int t) {
    uint16_t* numbers = reinterpret_cast<uint16_t*>(weights.data());
    const int64_t count = weights.bytes() / 2;
    uint32_t state = 12345 + t;
    for (int64_t i = count * t / threads; i < count * (t + 1) / threads; ++i) {
      state = state * 1664525u + 1013904223u;
      numbers[i] = static_cast<uint16_t>(0x3C00 | (state >> 31 << 15) | (state >> 16 & 0x7f));
    }
  });
  const std::unique_ptr<kernels::Ops> ops = kernels::MakeCpuOps(threads);
  Report report("kernels, " + std::to_string(threads) + " threads", options.json);
  KernelBench bench = {threads, options.runs, weights, *ops, report};
  const auto wanted = [](const char* part) { return options.only.empty() || options.only == part; };
  if (wanted("decode")) BenchDecodeMatrices(bench);
  if (wanted("prefill")) BenchPrefillMatrices(bench);
  if (wanted("other")) BenchOtherOps(bench);
  report.Print();
  return 0;
}

}  // namespace

double MedianSeconds(int runs, const std::function<void()>& f) {
  f();
  std::vector<double> seconds;
  for (int i = 0; i < runs; ++i) {
    const double start = Now();
    f();
    seconds.push_back(Now() - start);
  }
  return Median(seconds);
}

const Subcommand kKernelsCommand = {"kernels", "each op of the CPU backend beside its limit",
                                    AddOptions, Run};

}  // namespace switchyard::bench
