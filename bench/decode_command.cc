// `decode`: tokens a second of a model in this process, beside the memory read rate.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <limits>

#include "bench/engine_run.h"
#include "bench/limits.h"
#include "bench/report.h"
#include "bench/subcommand.h"
#include "common/usable_cores.h"

namespace switchyard::bench {
namespace {

struct {
  std::string dir;
  std::vector<int> batches = {1};
  int prompt = 16;
  int tokens = 32;
  std::string device = "cpu";
  bool no_graphs = false;
  int threads = 0;
  int runs = 5;
  bool json = false;
} options;

void AddOptions(CLI::App& app) {
  app.add_option("dir", options.dir, "checkpoint (see make-model)")->required();
  app.add_option("--batches", options.batches, "sequences at once, one measurement for each")
      ->delimiter(',')
      ->check(CLI::Range(1, 256));
  app.add_option("--prompt", options.prompt, "tokens of each prompt")->check(CLI::PositiveNumber);
  app.add_option("--tokens", options.tokens, "tokens of each output")->check(CLI::Range(2, 65536));
  app.add_option("--device", options.device, "cpu, or a GPU's UUID");
  app.add_flag("--no-graphs", options.no_graphs, "a GPU's decode steps op by op");
  app.add_option("--threads", options.threads, "of cpu; 0: one per usable core");
  app.add_option("--runs", options.runs, "each figure is the median of so many")
      ->check(CLI::PositiveNumber);
  app.add_flag("--json", options.json, "one JSON document");
}

// Seconds a step, from the first token of the last sequence to the end of the first: while all run.
// Prompts that take several steps start their sequences one after the other, so the steps in
// between are counted. None in between: 0.
double SecondsPerStep(const std::vector<EngineRun::Result>& results) {
  Nanos begin = 0, end = std::numeric_limits<Nanos>::max();
  for (const EngineRun::Result& result : results) {
    if (result.at.empty()) return 0;  // it failed
    begin = std::max(begin, result.at.front());
    end = std::min(end, result.at.back());
  }
  const auto steps = std::count_if(results.front().at.begin(), results.front().at.end(),
                                   [begin, end](Nanos at) { return at > begin && at <= end; });
  return steps == 0 ? 0 : static_cast<double>(end - begin) / kSecond / static_cast<double>(steps);
}

// The limit is measured between the runs, so that a busy machine slows both.
void Measure(EngineRun& run, int batch, int threads, Report& report) {
  std::vector<double> steps, reads;
  run.Generate(batch, options.prompt, 4);  // warm
  for (int i = 0; i < options.runs; ++i) {
    reads.push_back(run.MeasureLimit(threads));
    steps.push_back(SecondsPerStep(run.Generate(batch, options.prompt, options.tokens)));
  }
  const double step = Median(steps), read = Median(reads);
  if (step == 0) {
    std::fprintf(stderr,
                 "batch %d: --tokens is too small, no step had all sequences, or one failed\n",
                 batch);
    return;
  }
  const double kv = static_cast<double>(run.model().plan.kv_bytes_per_token()) * batch *
                    (options.prompt + options.tokens / 2);
  const double bytes = run.WeightBytesPerStep(batch) + kv;
  const std::string name = "batch " + std::to_string(batch) + ": ";
  report.Add(name + "decode", batch / step, "tokens/s", batch * read * 1e9 / bytes,
             std::string(run.limit_name()) + " / bytes of a step");
  report.Add(name + "step reads", bytes / 1e9, "GB");
  report.Add(name + "read while decoding", bytes / step / 1e9, "GB/s", read, run.limit_name());
}

int Run() {
  const int threads = options.threads > 0 ? options.threads : UsableCores();
  const int most = *std::max_element(options.batches.begin(), options.batches.end());
  auto run = EngineRun::Start({.checkpoint = options.dir,
                               .device = options.device,
                               .graphs = !options.no_graphs,
                               .threads = threads,
                               .context_length = options.prompt + options.tokens + 4,
                               .max_sequences = most});
  if (!run.ok()) {
    std::fprintf(stderr, "%s\n", std::string(run.status().message()).c_str());
    return 1;
  }
  Report report("decode, " + (*run)->model().plan.architecture() + ", " +
                    (options.device == "cpu" ? std::to_string(threads) + " threads"
                     : options.no_graphs     ? "op by op"
                                             : "with graphs"),
                options.json);
  for (int batch : options.batches) Measure(**run, batch, threads, report);
  report.Print();
  return 0;
}

}  // namespace

const Subcommand kDecodeCommand = {"decode", "tokens a second, beside the memory read rate",
                                   AddOptions, Run};

}  // namespace switchyard::bench
