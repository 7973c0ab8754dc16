#pragma once

// The op set in plain loops over double: slow, without threads or tiles, and obviously right. It
// reads and writes the same buffers as the CPU backend (float32 activations), so a test runs the
// same arguments through both and compares. Weights of every type; KV f32, bf16 and fp8; no
// scratch.

#include <memory>
#include <vector>

#include "kernels/ops.h"

namespace switchyard::kernels {

std::unique_ptr<Ops> MakeReferenceOps();

// Parts that tests use on their own.
double ReferenceFloat(const void* data, DType type, int64_t index);
uint8_t ReferenceFp8(double value);  // e4m3: the nearest, the even one of two; 0x7f: NaN
double ReferenceWeight(const Matrix& w, int64_t batch, int64_t n, int64_t k);
std::vector<double> ReferenceNorm(const float* x, const float* weight, double eps, int64_t count);
double ReferenceActivation(Activation activation, double gate, double up);

// What sampling should draw from: a probability for every token, zero for those filtered away. For
// temperature 0, one for the winner.
std::vector<double> ReferenceDistribution(const SamplingRow& row, const float* logits,
                                          int32_t vocabulary, const int32_t* history);

}  // namespace switchyard::kernels
