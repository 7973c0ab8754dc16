#pragma once

// The ops of a model's step over random weights, in the order of worker/model/transformer.cc.

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/ops.h"
#include "tests/gpu/bench_model.h"
#include "tests/gpu/bench_shapes.h"

namespace switchyard::bench {

class Chain {
 public:
  // KV for `sequences` of `context` positions; steps of `rows` rows.
  Chain(const Shape& shape, const Forms& forms, int32_t rows, int32_t sequences, int32_t context,
        cudaStream_t stream, kernels::DType kv = kernels::DType::kBF16);
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;
  ~Chain();

  // Which ops a run launches, of the layers that have them.
  struct Parts {
    bool embed = false, attention_input = false, attention = false, output = false;
    bool post_norms = false;
    bool mlp = false, down = false;       // of dense layers
    bool route = false, experts = false;  // of mixtures; experts: a shared one, too
    bool head = false, sample = false;
  };
  static Parts Products() {
    return {.attention_input = true,
            .output = true,
            .mlp = true,
            .down = true,
            .route = true,
            .experts = true,
            .head = true};
  }
  static Parts Step() {
    Parts parts = Products();
    parts.embed = parts.attention = parts.post_norms = parts.sample = true;
    return parts;
  }
  void Launch(kernels::Ops& ops, const Parts& parts);
  int64_t ProductBytes(const Parts& parts) const;  // weights read once; of experts, one row's
  int64_t KvBytes() const;                         // that all layers see
  double AttentionFlops() const;  // of all layers, of one sequence from its first position on
  void Filter(int32_t top_k, float top_p);  // of every row's sampling from now on
  double ProductFlops(const Parts& parts) const;

 private:
  template <class T>
  T* Allocate(int64_t count);
  template <class T>
  T* Upload(const std::vector<T>& values);
  void* RandomActivations(int64_t width, uint32_t seed);  // [rows][width]
  void MakeRows();
  void MakeKv(kernels::DType dtype);
  void MakeChoices();
  void MakeSampling();
  void MakeScratch(bool quantized);

  void LaunchAttention(kernels::Ops& ops, const Parts& parts, int32_t i);
  void LaunchDense(kernels::Ops& ops, const Parts& parts, int32_t i);
  void LaunchMixture(kernels::Ops& ops, const Parts& parts, int32_t i);
  void LaunchPostNorm(kernels::Ops& ops, const Parts& parts, const float* norm);
  void* BranchTarget() const { return shape_.post_norms ? branch_ : x_; }
  kernels::KvView KvOf(int32_t i) const;
  // The sum over all layers' matrices that `parts` multiply by.
  double SumOfLayers(const Parts& parts,
                     const std::function<double(const kernels::Matrix&)>& of) const;

  Shape shape_;
  int32_t rows_, sequences_, context_;
  cudaStream_t stream_;
  std::vector<void*> owned_;
  RandomModel model_;
  kernels::StepRows step_;
  kernels::TokenTable tokens_;
  kernels::KvView kv_;  // value_offset: bytes of a block's keys of one layer
  float *inv_freq_ = nullptr, *logits_ = nullptr;
  void *x_ = nullptr, *q_ = nullptr, *attention_ = nullptr, *inner_ = nullptr;
  void *normed_ = nullptr, *branch_ = nullptr;  // of mixtures; of post-norms
  // Every layer's own, so that the experts alone read what the last step has chosen.
  int32_t* expert_ids_ = nullptr;    // [layers][rows][chosen]
  float* expert_weights_ = nullptr;  // likewise
  int32_t *head_row_ = nullptr, *ids_ = nullptr;
  std::vector<kernels::SamplingRow> sampling_rows_;
  kernels::SamplingRow* sampling_ = nullptr;
  kernels::Scratch scratch_;
};

}  // namespace switchyard::bench
