#include "tests/gpu/bench_deployed.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "tests/gpu/bench_chain.h"
#include "tests/gpu/bench_model.h"
#include "tests/gpu/bench_read.h"
#include "tests/gpu/bench_shapes.h"

namespace switchyard::bench {
namespace {

using Parts = Chain::Parts;

constexpr int32_t kContext = 512;
constexpr int kStepRuns = 20, kOpRuns = 10;
// Of the device's memory, for all that is not a weight.
constexpr int64_t kReserved = int64_t{2} << 30;

struct Kind {
  const char* name;
  int32_t count;  // in a step
  Parts parts;
};

std::vector<Kind> KindsOf(const Shape& s) {
  const int32_t dense = DenseLayers(s), mixtures = s.layers - dense;
  return {{"AttentionInput", s.layers, {.attention_input = true}},
          {"Attention", s.layers, {.attention = true}},
          {"Linear (o)", s.layers, {.output = true}},
          {"PostNormAdd", s.post_norms ? 2 * s.layers : 0, {.post_norms = true}},
          {"MlpInput", dense, {.mlp = true}},
          {"Linear (down)", dense, {.down = true}},
          {"MoeRoute", mixtures, {.route = true}},
          {"MoeExperts", mixtures, {.experts = true}},
          {"Head", 1, {.head = true}},
          {"Embed, Sample", 1, {.embed = true, .sample = true}}};
}

// Weights, and of a step with attention KV.
int64_t BytesOf(const Chain& chain, const Parts& parts) {
  return chain.ProductBytes(parts) + (parts.attention ? chain.KvBytes() : 0);
}

void Row(const char* name, double seconds, int64_t bytes, double limit) {
  std::printf("  %-22s %8.1f us", name, seconds * 1e6);
  if (bytes > 0) {
    const double rate = static_cast<double>(bytes) / seconds;
    std::printf("  %7.3f GB  %7.1f GB/s  %5.1f%%", static_cast<double>(bytes) * 1e-9, rate * 1e-9,
                100 * rate / limit);
  }
}

// As many layers as the device has room for.
Shape Fitting(const Shape& shape, const Forms& forms) {
  size_t free = 0, total = 0;
  Check(cudaMemGetInfo(&free, &total), "memory");
  Shape fitting = shape;
  while (fitting.layers > 1 &&
         ModelBytes(fitting, forms) + kReserved > static_cast<int64_t>(free)) {
    --fitting.layers;
  }
  return fitting;
}

void PrintTitle(const DeployedShape& model, const Shape& shape) {
  std::printf("%s, %s, %d layers", model.name, model.form, shape.layers);
  if (shape.layers < model.shape.layers) {
    std::printf(" of %d (there is no room for more)", model.shape.layers);
  }
  if (shape.window > 0) {
    std::printf(", %d of them with windows of %d", WindowedLayers(shape), shape.window);
  }
  std::printf(", %.1f GB of weights\n", static_cast<double>(ModelBytes(shape, model.forms)) * 1e-9);
}

void Report(const DeployedShape& model, double limit, kernels::Ops& ops, cudaStream_t stream) {
  const Shape shape = Fitting(model.shape, model.forms);
  PrintTitle(model, shape);
  std::fflush(stdout);
  Chain chain(shape, model.forms, 1, 1, kContext, stream);
  const auto seconds = [&](const Parts& parts, int runs) {
    return MedianSeconds(stream, runs, true, [&] { chain.Launch(ops, parts); });
  };
  const double step = seconds(Chain::Step(), kStepRuns);
  Row("the step", step, BytesOf(chain, Chain::Step()), limit);
  std::printf(" (aim %d%%)  %.1f tokens/s\n", model.aim, 1 / step);
  for (const Kind& kind : KindsOf(shape)) {
    if (kind.count == 0) continue;
    const std::string name = std::string(kind.name) + " x " + std::to_string(kind.count);
    Row(kind.count > 1 ? name.c_str() : kind.name, seconds(kind.parts, kOpRuns),
        BytesOf(chain, kind.parts), limit);
    std::printf("\n");
  }
  std::fflush(stdout);
}

bool IsNamed(const DeployedShape& model, const std::string& name) {
  return std::string(model.name).starts_with(name);
}

void CheckNames(const std::vector<std::string>& names) {
  const std::vector<DeployedShape>& models = DeployedShapes();
  for (const std::string& name : names) {
    const auto named = [&](const DeployedShape& model) { return IsNamed(model, name); };
    if (std::any_of(models.begin(), models.end(), named)) continue;
    std::fprintf(stderr, "no shape is named %s; there are", name.c_str());
    for (const DeployedShape& model : models) std::fprintf(stderr, " %s", model.name);
    std::fprintf(stderr, "\n");
    std::exit(1);
  }
}

}  // namespace

void Deployed(const std::vector<std::string>& names, double read_limit, cudaStream_t stream) {
  CheckNames(names);
  kernels::OpError error;
  const std::unique_ptr<kernels::Ops> ops = kernels::MakeCudaOps({}, &error);
  if (ops == nullptr) {
    std::fprintf(stderr, "%s\n", error.message);
    std::exit(1);
  }
  for (const DeployedShape& model : DeployedShapes()) {
    const bool named = std::any_of(names.begin(), names.end(),
                                   [&](const std::string& name) { return IsNamed(model, name); });
    if (names.empty() || named) Report(model, read_limit, *ops, stream);
  }
}

}  // namespace switchyard::bench
