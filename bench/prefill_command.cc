// `prefill`: tokens a second of reading a prompt, beside oneDNN on the same matrix shapes.

#include <CLI/CLI.hpp>
#include <cstdio>

#include "bench/engine_run.h"
#include "bench/limits.h"
#include "bench/report.h"
#include "bench/subcommand.h"
#include "common/usable_cores.h"

namespace switchyard::bench {
namespace {

struct {
  std::string dir;
  int prompt = 512;
  int chunk = 0;
  int threads = 0;
  int runs = 5;
  bool json = false;
} options;

void AddOptions(CLI::App& app) {
  app.add_option("dir", options.dir, "checkpoint (see make-model)")->required();
  app.add_option("--prompt", options.prompt, "tokens")->check(CLI::PositiveNumber);
  app.add_option("--chunk", options.chunk, "tokens of a step; 0: as a worker does");
  app.add_option("--threads", options.threads, "0: one per usable core");
  app.add_option("--runs", options.runs, "each figure is the median of so many")
      ->check(CLI::PositiveNumber);
  app.add_flag("--json", options.json, "one JSON document");
}

bool IsLayerMatrix(const worker::ImageTensor& tensor) {
  return tensor.layer >= 0 && tensor.n > 1 && tensor.k > 1 && tensor.batch == 1;
}

struct Work {
  double flops = 0;           // of the layers' matrices
  double onednn_seconds = 0;  // the same products, in float32
};

// Every shape is measured once and counted as often as it occurs.
Work MeasureOneDnn(const worker::ImageLayout& image, int64_t rows) {
  std::map<std::pair<int64_t, int64_t>, int> shapes;
  for (const worker::ImageTensor& tensor : image.tensors) {
    if (IsLayerMatrix(tensor)) ++shapes[{tensor.n, tensor.k}];
  }
  Work work;
  for (const auto& [shape, count] : shapes) {
    const auto [n, k] = shape;
    const double flops = 2.0 * static_cast<double>(rows * n * k);
    const double rate = MeasureSgemm(rows, n, k) * 1e9;
    work.flops += flops * count;
    if (rate > 0) work.onednn_seconds += flops * count / rate;
  }
  return work;
}

int Run() {
  const int threads = options.threads > 0 ? options.threads : UsableCores();
  auto run = EngineRun::Start({.checkpoint = options.dir,
                               .threads = threads,
                               .context_length = options.prompt + 8,
                               .max_sequences = 1,
                               .prefill_chunk = options.chunk});
  if (!run.ok()) {
    std::fprintf(stderr, "%s\n", std::string(run.status().message()).c_str());
    return 1;
  }
  const worker::OpenedModel& model = (*run)->model();
  (*run)->Generate(1, options.prompt, 1);  // warm
  std::vector<double> ours, onednn;
  Work work;
  for (int i = 0; i < options.runs; ++i) {
    work = MeasureOneDnn(model.image, options.prompt);
    onednn.push_back(work.onednn_seconds);
    const auto times = (*run)->Generate(1, options.prompt, 1).front().times;
    ours.push_back(static_cast<double>(times.first_token - times.prefill_started) / kSecond);
  }
  const double seconds = Median(ours), limit = Median(onednn);
  Report report("prefill of " + std::to_string(options.prompt) + " tokens, " +
                    model.plan.architecture() + ", " + std::to_string(threads) + " threads",
                options.json);
  report.Add("prefill", options.prompt / seconds, "tokens/s",
             limit > 0 ? options.prompt / limit : 0, "oneDNN sgemm, the layers' matrices alone");
  report.Add("prefill", work.flops / seconds / 1e9, "GFLOP/s",
             limit > 0 ? work.flops / limit / 1e9 : 0, "oneDNN sgemm");
  report.Print();
  return 0;
}

}  // namespace

const Subcommand kPrefillCommand = {"prefill", "tokens a second of a prompt, beside oneDNN",
                                    AddOptions, Run};

}  // namespace switchyard::bench
