#pragma once

// Element-wise work on whole vectors. The order of every sum depends on `count` alone.

#include <cstdint>

#include "kernels/ops.h"

namespace switchyard::kernels {

// out[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i]. out may be x.
void RmsNorm(const float* x, const float* weight, float eps, int64_t count, float* out);

// y[i] += x[i] / sqrt(mean(x^2) + eps) * weight[i].
void RmsNormAdd(const float* x, const float* weight, float eps, int64_t count, float* y);

// gate[i] = activation(gate[i], up[i]).
void Activate(Activation activation, float* gate, const float* up, int64_t count);

// y[i] += weight * x[i].
void AddScaled(const float* x, float weight, int64_t count, float* y);

void Scale(float factor, int64_t count, float* x);

// x[i] = cap * tanh(x[i] / cap).
void SoftCap(float cap, int64_t count, float* x);

// The largest element; NaN if any is.
float Largest(const float* x, int64_t count);

// Sum of exp(x[i] - offset). With `out`, out[i] = exp(x[i] - offset) as well.
float SumExp(const float* x, float offset, int64_t count, float* out);

// Number of elements >= bound; their indices go to `out` in order, as long as there is room.
int64_t FindAtLeast(const float* x, float bound, int64_t count, int32_t* out, int64_t room);

}  // namespace switchyard::kernels
