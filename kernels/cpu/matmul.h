#pragma once

// y = W x for the rows of a matrix that one thread owns: the core that every op with a weight
// shares.

#include <cstdint>

#include "kernels/ops.h"

namespace switchyard::kernels {

// rows x k activations. With `index`, row r is row index[r] of `data`.
struct MatmulInput {
  const float* data = nullptr;
  int64_t stride = 0;
  const int32_t* index = nullptr;
  int64_t rows = 0;
};

// y[r][n] = dot(w[n], x[r]) + bias[n], or += that; column n of row r lies at
// data[r * stride + n - first].
struct MatmulOutput {
  float* data = nullptr;
  int64_t stride = 0;
  int64_t first = 0;
  const float* bias = nullptr;
  bool accumulate = false;
};

// An error if what describes the matrix contradicts ops.h.
OpError CheckMatrix(const Matrix& w);

// Floats of private scratch that each thread needs for MatmulColumns.
int64_t MatmulScratchFloats();

// Columns [begin, end) of the output, by matrix `batch` of w, on the calling thread.
void MatmulColumns(const MatmulInput& x, const Matrix& w, int64_t batch, int64_t begin, int64_t end,
                   const MatmulOutput& y, float* scratch);

// out[0, k) = row n of matrix `batch` of w.
void MatrixRow(const Matrix& w, int64_t batch, int64_t n, float* out);

// Columns that are worth a thread: waking one costs about as much as this many multiplications.
int64_t MatmulGrain(int64_t rows, int64_t k);

}  // namespace switchyard::kernels
