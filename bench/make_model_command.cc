// `make-model`: a checkpoint of a real model's shape with random weights.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>

#include "bench/limits.h"
#include "bench/random_checkpoint.h"
#include "bench/report.h"
#include "bench/subcommand.h"
#include "common/usable_cores.h"

namespace switchyard::bench {
namespace {

struct {
  std::string dir;
  std::string shape = "llama-1b";
  ModelShape changes;
  bool tied = false, untied = false;
  double shard_gib = 4;
  uint64_t seed = 1;
  int threads = 0;
  bool json = false;
} options;

void AddOptions(CLI::App& app) {
  app.add_option("dir", options.dir, "directory to write; made if it is not there")->required();
  std::vector<std::string> names;
  for (const ModelShape& shape : KnownShapes()) names.push_back(shape.name);
  app.add_option("--shape", options.shape)->check(CLI::IsMember(names));
  ModelShape& changes = options.changes;
  app.add_option("--hidden", changes.hidden, "this and what follows changes the shape");
  app.add_option("--layers", changes.layers);
  app.add_option("--q-heads", changes.q_heads);
  app.add_option("--kv-heads", changes.kv_heads);
  app.add_option("--head-dim", changes.head_dim);
  app.add_option("--intermediate", changes.intermediate);
  app.add_option("--vocabulary", changes.vocabulary);
  app.add_flag("--tied", options.tied, "the head is the embedding");
  app.add_flag("--untied", options.untied);
  app.add_option("--shard-gib", options.shard_gib)->check(CLI::PositiveNumber);
  app.add_option("--seed", options.seed);
  app.add_option("--threads", options.threads, "0: one per usable core");
  app.add_flag("--json", options.json, "one JSON document");
}

ModelShape ChosenShape() {
  ModelShape shape;
  for (const ModelShape& known : KnownShapes()) {
    if (known.name == options.shape) shape = known;
  }
  const ModelShape& changes = options.changes;
  for (int64_t ModelShape::*field :
       {&ModelShape::hidden, &ModelShape::layers, &ModelShape::q_heads, &ModelShape::kv_heads,
        &ModelShape::head_dim, &ModelShape::intermediate, &ModelShape::vocabulary}) {
    if (changes.*field > 0) shape.*field = changes.*field;
  }
  if (options.tied) shape.tied_embeddings = true;
  if (options.untied) shape.tied_embeddings = false;
  return shape;
}

int Run() {
  const ModelShape shape = ChosenShape();
  const int threads = options.threads > 0 ? options.threads : UsableCores();
  const int64_t bytes = CheckpointBytes(shape);
  std::filesystem::create_directories(options.dir);
  std::error_code error;
  const auto space = std::filesystem::space(options.dir, error);
  if (!error && space.available < static_cast<uint64_t>(bytes) + (uint64_t{1} << 26)) {
    std::fprintf(stderr, "%s: %.1f GB are needed, %.1f GB are free\n", options.dir.c_str(),
                 static_cast<double>(bytes) / 1e9, static_cast<double>(space.available) / 1e9);
    return 1;
  }
  const double start = Now();
  absl::Status status =
      WriteRandomCheckpoint(shape, options.dir, static_cast<int64_t>(options.shard_gib * (1 << 30)),
                            options.seed, threads);
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", std::string(status.message()).c_str());
    return 1;
  }
  Report report("make-model " + shape.name + " in " + options.dir, options.json);
  report.Add("checkpoint", static_cast<double>(bytes) / 1e9, "GB");
  report.Add("written", static_cast<double>(bytes) / 1e9 / (Now() - start), "GB/s");
  report.Print();
  return 0;
}

}  // namespace

const Subcommand kMakeModelCommand = {"make-model", "a checkpoint with random weights", AddOptions,
                                      Run};

}  // namespace switchyard::bench
