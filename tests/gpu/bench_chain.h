#pragma once

// The ops of a Llama-3.1-8B step over random weights of one format.

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/ops.h"
#include "tests/gpu/bench_weights.h"

namespace switchyard::bench {

struct Llama8B {
  static constexpr int32_t kLayers = 32, kHidden = 4096, kQHeads = 32, kKvHeads = 8, kDim = 128,
                           kInner = 14336, kVocabulary = 128256, kBlockTokens = 16;
};

class Chain {
 public:
  // KV for `sequences` of `context` positions; steps of `rows` rows.
  Chain(int32_t rows, int32_t sequences, int32_t context, cudaStream_t stream,
        const WeightFormat& format = kBf16Weights, kernels::DType kv = kernels::DType::kBF16);
  ~Chain();

  // Which ops a run launches.
  struct Parts {
    bool embed = false, attention_input = false, attention = false, output = false, mlp = false,
         down = false, head = false, sample = false;
  };
  static Parts Products() { return {false, true, false, true, true, true, true, false}; }
  static Parts Step() { return {true, true, true, true, true, true, true, true}; }
  void Launch(kernels::Ops& ops, const Parts& parts);
  int64_t ProductBytes(const Parts& parts) const;  // weights read once
  int64_t KvBytes() const;                         // of all layers
  double AttentionFlops() const;  // of all layers, of one sequence from its first position on
  void Filter(int32_t top_k, float top_p);  // of every row's sampling from now on
  double ProductFlops(const Parts& parts) const;

 private:
  template <class T>
  T* Allocate(int64_t count);
  template <class T>
  T* Upload(const std::vector<T>& values);
  struct Layer {
    kernels::Matrix qkv, o, gate_up, down;
  };
  int32_t rows_, sequences_, context_;
  cudaStream_t stream_;
  std::vector<void*> owned_;
  WeightPool weights_;
  std::vector<Layer> layers_;
  kernels::Matrix head_;
  kernels::StepRows step_;
  kernels::TokenTable tokens_;
  kernels::KvView kv_;
  float *norm_ = nullptr, *inv_freq_ = nullptr, *logits_ = nullptr;
  void *x_ = nullptr, *q_ = nullptr, *attention_ = nullptr, *inner_ = nullptr;
  int32_t *head_row_ = nullptr, *ids_ = nullptr;
  std::vector<kernels::SamplingRow> sampling_rows_;
  kernels::SamplingRow* sampling_ = nullptr;
  kernels::Scratch scratch_;
};

}  // namespace switchyard::bench
