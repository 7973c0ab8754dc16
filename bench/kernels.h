#pragma once

// The parts of `switchyard-bench kernels`.

#include <algorithm>
#include <memory>

#include "bench/limits.h"
#include "bench/report.h"
#include "kernels/ops.h"

namespace switchyard::bench {

struct KernelBench {
  int threads = 1;
  int runs = 7;
  const Buffer& weights;  // bf16 numbers, many times the last-level cache
  kernels::Ops& ops;
  Report& report;
};

// The weight matrices of a decode step of a 1.2 B model, at batch 1 and small batches, beside the
// read rate; products of 512 rows beside oneDNN.
void BenchDecodeMatrices(KernelBench& bench);
void BenchPrefillMatrices(KernelBench& bench);
// Attention, norms, routing, experts, sampling.
void BenchOtherOps(KernelBench& bench);

// Activations, aligned as an arena aligns them.
class Floats {
 public:
  explicit Floats(int64_t count, float value = 0) : buffer_(count * 4) {
    std::fill_n(data(), count, value);
  }
  float* data() const { return reinterpret_cast<float*>(buffer_.data()); }

 private:
  Buffer buffer_;
};

// Median seconds of f.
double MedianSeconds(int runs, const std::function<void()>& f);

}  // namespace switchyard::bench
