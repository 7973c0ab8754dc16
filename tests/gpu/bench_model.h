#pragma once

// Random weights of a whole model, distinct for every layer.

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/ops.h"
#include "tests/gpu/bench_shapes.h"
#include "tests/gpu/bench_weights.h"

namespace switchyard::bench {

// Without data, or null, what the layer's shape does not have.
struct RandomLayer {
  kernels::Matrix qkv, o;
  kernels::Matrix gate_up, down;  // of a dense MLP
  kernels::Matrix router, experts_gate_up, experts_down;
  kernels::Matrix shared_gate_up, shared_down;
  const float *attention_norm = nullptr, *mlp_norm = nullptr;
  const float *post_attention_norm = nullptr, *post_mlp_norm = nullptr;
  const float *q_norm = nullptr, *k_norm = nullptr, *sinks = nullptr;
  const float *qkv_bias = nullptr, *o_bias = nullptr;
  const float *router_bias = nullptr, *correction = nullptr;
  const float *gate_up_bias = nullptr, *down_bias = nullptr;  // of experts
};

// Of all matrices; vectors come to less than a hundredth of that.
int64_t ModelBytes(const Shape& shape, const Forms& forms);

class RandomModel {
 public:
  RandomModel(const Shape& shape, const Forms& forms, cudaStream_t stream);

  const RandomLayer& layer(int32_t i) const { return layers_[i]; }
  const kernels::Matrix& embedding() const { return embedding_; }
  const kernels::Matrix& head() const { return head_; }
  const float* final_norm() const { return final_norm_; }

 private:
  void TakeVectors(const Shape& shape, int32_t i);

  WeightPool pool_;
  std::vector<RandomLayer> layers_;
  kernels::Matrix embedding_, head_;
  const float* final_norm_ = nullptr;
};

}  // namespace switchyard::bench
