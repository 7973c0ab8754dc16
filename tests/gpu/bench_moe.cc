#include "tests/gpu/bench_moe.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <set>
#include <vector>

#include "kernels/shared_expert.h"
#include "tests/gpu/bench_read.h"
#include "tests/gpu/bench_weights.h"

namespace switchyard::bench {
namespace {

using kernels::Matrix;

// A shared expert of the others' size: part of the experts' op, or by itself behind it, as where it
// is of another size.
enum class Shared : uint8_t { kNone, kWithin, kApart };

struct MoeShape {
  const char* name;
  WeightFormat format;
  int32_t hidden, inner, experts, chosen, layers;  // fewer layers than the model has: it is a rate
  kernels::Activation activation;
  Shared shared = Shared::kNone;
};
const MoeShape kMoeShapes[] = {
    {"Qwen3-30B-A3B, bf16", kBf16Weights, 2048, 768, 128, 8, 12, kernels::Activation::kSilu},
    {"gpt-oss-120b, mxfp4", kMxfp4Weights, 2880, 2880, 128, 4, 12,
     kernels::Activation::kSwigluClamped},
    {"GLM-4.5-Air, int4", kInt4Weights, 4096, 1408, 128, 8, 12, kernels::Activation::kSilu},
    {"GLM-4.5-Air, int4, with its shared expert", kInt4Weights, 4096, 1408, 128, 8, 12,
     kernels::Activation::kSilu, Shared::kWithin},
    {"GLM-4.5-Air, int4, with its shared expert apart", kInt4Weights, 4096, 1408, 128, 8, 12,
     kernels::Activation::kSilu, Shared::kApart}};

template <class T>
T* Upload(std::vector<void*>& owned, const std::vector<T>& values) {
  void* data;
  Check(cudaMalloc(&data, values.size() * sizeof(T)), "allocate");
  owned.push_back(data);
  Check(cudaMemcpy(data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), "copy");
  return static_cast<T*>(data);
}

struct Layer {
  Matrix router, gate_up, down;
  Matrix shared_gate_up, shared_down;  // without data: there is none
};

void Report(const MoeShape& m, int32_t rows, const std::vector<Layer>& layers, double read_limit,
            kernels::Ops& ops, cudaStream_t stream) {
  std::vector<void*> owned;
  const int64_t x_count = int64_t{rows} * m.hidden;
  uint16_t* x = Upload(owned, std::vector<uint16_t>(x_count));
  uint16_t* normed = Upload(owned, std::vector<uint16_t>(x_count));
  uint16_t* shared_inner = Upload(owned, std::vector<uint16_t>(int64_t{rows} * m.inner));
  uint16_t* out = Upload(owned, std::vector<uint16_t>(x_count));
  FillRandom(x, x_count, 1.0f, 3, stream);
  FillRandom(normed, x_count, 1.0f, 4, stream);
  float* norm = Upload(owned, std::vector<float>(m.hidden, 1.0f));
  float* weights = Upload(owned, std::vector<float>(int64_t{rows} * m.chosen, 0.1f));
  int32_t* routed = Upload(owned, std::vector<int32_t>(int64_t{rows} * m.chosen));
  std::vector<int32_t*> ids;
  int64_t read = 0;  // each expert that any row has chosen, once
  for (size_t l = 0; l < layers.size(); ++l) {
    std::vector<int32_t> chosen;
    for (int32_t r = 0; r < rows; ++r) {
      std::set<int32_t> row;
      while (static_cast<int32_t>(row.size()) < m.chosen) row.insert(std::rand() % m.experts);
      chosen.insert(chosen.end(), row.begin(), row.end());
    }
    const int64_t distinct = std::set<int32_t>(chosen.begin(), chosen.end()).size();
    read += (MatrixBytes(layers[l].gate_up) + MatrixBytes(layers[l].down)) / m.experts * distinct;
    if (m.shared != Shared::kNone)
      read += MatrixBytes(layers[l].shared_gate_up) + MatrixBytes(layers[l].shared_down);
    ids.push_back(Upload(owned, chosen));
  }
  kernels::ScratchShape shape;
  shape.rows = rows;
  shape.hidden = m.hidden;
  shape.experts = m.experts;
  shape.chosen = m.chosen;
  shape.expert_intermediate = shape.intermediate = m.inner;
  shape.quantized = m.shared != Shared::kNone;
  kernels::Scratch scratch;
  scratch.bytes = ops.ScratchBytes(shape);
  scratch.data = Upload(owned, std::vector<char>(scratch.bytes));
  const auto ok = [](kernels::OpError error) {
    if (error.ok()) return;
    std::fprintf(stderr, "%s\n", error.message);
    std::exit(1);
  };
  const auto seconds = [&](bool route, bool experts) {
    return MedianSeconds(stream, 20, true, [&] {
      for (size_t l = 0; l < layers.size(); ++l) {
        if (route) {
          kernels::MoeRouteArgs a = {rows, x, norm, 1e-6f, layers[l].router};
          a.chosen = m.chosen;
          a.normed = normed;
          a.ids = routed;
          a.weights = weights;
          ok(ops.MoeRoute(a, scratch, stream));
        }
        if (!experts) continue;
        kernels::MoeExpertsArgs a;
        a.rows = rows;
        a.x = normed;
        a.ids = ids[l];
        a.weights = weights;
        a.chosen = m.chosen;
        a.gate_up = layers[l].gate_up;
        a.down = layers[l].down;
        a.activation = m.activation;
        a.accumulate = true;
        a.out = out;
        if (m.shared == Shared::kApart) ok(ops.MoeExperts(a, scratch, stream));
        a.shared_gate_up = layers[l].shared_gate_up;
        a.shared_down = layers[l].shared_down;
        a.shared_inner = shared_inner;
        ok(m.shared == Shared::kApart ? kernels::AddSharedExpert(ops, a, scratch, stream)
                                      : ops.MoeExperts(a, scratch, stream));
      }
    });
  };
  const double route = seconds(true, false), experts = seconds(false, true);
  const double both = seconds(true, true);
  std::printf(
      "  batch %2d: experts %7.1f us a layer %5.1f%%, with routing %7.1f us %5.1f%%, "
      "routing alone %5.1f us\n",
      rows, experts / m.layers * 1e6, 100 * read / experts / read_limit, both / m.layers * 1e6,
      100 * read / both / read_limit, route / m.layers * 1e6);
  for (void* data : owned) cudaFree(data);
}

}  // namespace

void Experts(double read_limit, cudaStream_t stream) {
  const auto ops = kernels::MakeCudaOps({}, nullptr);
  for (const MoeShape& m : kMoeShapes) {
    WeightPool pool(stream);
    std::vector<Layer> layers;
    for (int i = 0; i < m.layers; ++i) {
      layers.push_back({pool.Take(kBf16Weights, m.experts, m.hidden),
                        pool.Take(m.format, 2 * m.inner, m.hidden, m.experts),
                        pool.Take(m.format, m.hidden, m.inner, m.experts),
                        {},
                        {}});
      if (m.shared == Shared::kNone) continue;
      layers.back().shared_gate_up = pool.Take(m.format, 2 * m.inner, m.hidden);
      layers.back().shared_down = pool.Take(m.format, m.hidden, m.inner);
    }
    std::printf("%s\n", m.name);
    for (const int32_t rows : {1, 2, 4, 16, 64}) {
      Report(m, rows, layers, read_limit, *ops, stream);
    }
  }
}

}  // namespace switchyard::bench
