// `limits`: what the other subcommands hold their results against.

#include <CLI/CLI.hpp>
#include <algorithm>

#include "bench/limits.h"
#include "bench/report.h"
#include "bench/subcommand.h"
#include "common/usable_cores.h"

namespace switchyard::bench {
namespace {

struct {
  int64_t mebibytes = 2048;
  int threads = 0;
  int runs = 7;
  bool json = false;
} options;

void AddOptions(CLI::App& app) {
  app.add_option("--mib", options.mebibytes, "size of the buffer; many times the last-level cache")
      ->check(CLI::PositiveNumber);
  app.add_option("--threads", options.threads, "0: one per usable core");
  app.add_option("--runs", options.runs, "each figure is the median of so many")
      ->check(CLI::PositiveNumber);
  app.add_flag("--json", options.json, "one JSON document");
}

int Run() {
  const int threads = options.threads > 0 ? options.threads : UsableCores();
  const Buffer buffer(options.mebibytes << 20);
  Buffer target(std::min<int64_t>(options.mebibytes << 20, int64_t{1} << 30));
  const auto median = [](const auto& measure) {
    std::vector<double> values;
    for (int i = 0; i < options.runs; ++i) values.push_back(measure());
    return Median(values);
  };
  Report report("limits, " + std::to_string(threads) + " threads", options.json);
  report.Add("memory read", median([&] { return MeasureRead(buffer, threads); }), "GB/s");
  const double copy = median([&] { return MeasureCopy(buffer, target, threads); });
  report.Add("memory copy", copy, "GB/s");
  // The host of a virtual machine backs memory when it is first touched, at a tenth of the rate or
  // less, and may take it back once it is freed: that is not what the guest's pages cost, so here
  // the best run counts.
  double fresh = 0;
  for (int i = 0; i <= options.runs; ++i) {
    fresh = std::max(fresh, MeasureCopyToFreshPages(buffer, target.bytes(), threads));
  }
  report.Add("memory copy into fresh huge pages, best", fresh, "GB/s", copy, "memory copy");
  MeasureSgemm(512, 2048, 2048);
  if (const double rate = median([] { return MeasureSgemm(512, 2048, 2048); }); rate > 0) {
    report.Add("oneDNN sgemm 512 x 2048 x 2048", rate, "GFLOP/s");
  }
  report.Print();
  return 0;
}

}  // namespace

const Subcommand kLimitsCommand = {"limits", "memory and arithmetic limits of this machine",
                                   AddOptions, Run};

}  // namespace switchyard::bench
