#pragma once

// The larger ops of the reference, one file each group.

#include <vector>

#include "tests/reference/reference_ops.h"

namespace switchyard::kernels {

inline std::vector<double> Widen(const float* x, int64_t count) { return {x, x + count}; }
double ReferenceDot(const Matrix& w, int64_t batch, int64_t n, const double* x);

void ReferenceAttentionInput(const AttentionInputArgs& a);
void ReferenceAttention(const AttentionArgs& a);
void ReferenceMoeRoute(const MoeRouteArgs& a);
void ReferenceMoeExperts(const MoeExpertsArgs& a);
void ReferenceSample(const SampleArgs& a);
void ReferenceLogprobs(const LogprobArgs& a);

}  // namespace switchyard::kernels
