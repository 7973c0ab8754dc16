#pragma once

// Seeded inputs for the kernel tests: vectors, weights of every type, and steps over paged KV.

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "kernels/ops.h"

namespace switchyard::kernels {

using Random = std::mt19937;

std::vector<float> RandomVector(Random& random, int64_t count, float spread = 1.0f);

// A weight matrix that owns its memory.
struct TestMatrix {
  std::vector<uint8_t> bytes, scales, zeros;
  Matrix matrix;
};
// Of f32, bf16 or f16.
TestMatrix RandomMatrix(Random& random, DType dtype, int64_t n, int64_t k, int64_t batch = 1,
                        float spread = 1.0f);

// Every bit pattern of the type that is a number, with scales that vary by a factor of two, so that
// weights have about the standard deviation `spread`.
struct QuantizedForm {
  DType dtype = DType::kF8E4M3;
  int32_t group = 0;   // kernels::Matrix
  bool zeros = false;  // kInt4: stored, else 8
};
TestMatrix RandomMatrix(Random& random, const QuantizedForm& form, int64_t n, int64_t k,
                        int64_t batch = 1, float spread = 1.0f);

// The same weights as f32, each by ReferenceWeight: for oracles that read a weight once a row.
TestMatrix Dequantized(const TestMatrix& m);

// Scratch of exactly what the shape asks for, with a guard behind it.
class TestScratch {
 public:
  TestScratch(const Ops& ops, const ScratchShape& shape);
  ~TestScratch();
  operator Scratch() { return {data_, bytes_}; }

 private:
  std::vector<uint8_t> buffer_;
  uint8_t* data_;
  int64_t bytes_;
};

// Experts without biases or a shared one. ids and weights: [rows][chosen].
inline MoeExpertsArgs ExpertsArgs(int32_t rows, int32_t chosen, const void* x, const int32_t* ids,
                                  const float* weights, const Matrix& gate_up, const Matrix& down) {
  MoeExpertsArgs args;
  args.rows = rows;
  args.x = x;
  args.ids = ids;
  args.weights = weights;
  args.chosen = chosen;
  args.gate_up = gate_up;
  args.down = down;
  return args;
}

// A step over paged KV: each sequence has `past` positions already and `fresh` rows now.
struct TestSequence {
  int32_t past = 0;
  int32_t fresh = 1;
};
class TestStep {
 public:
  // Blocks of the pool are given out in random order, the pool is filled with random numbers. With
  // `padding`, so many rows of slot -1 follow.
  TestStep(Random& random, std::vector<TestSequence> sequences, int32_t kv_heads, int32_t head_dim,
           DType dtype = DType::kF32, int32_t padding = 0);

  // Makes this a step of `count` rows of one slot from position `from`, over the same KV.
  void SetRows(int32_t slot, int32_t from, int32_t count);

  StepRows rows() const;
  KvView kv();
  TokenTable tokens() { return {tokens_.data(), stride_}; }
  ScratchShape shape() const;
  std::vector<uint8_t>& pool() { return pool_; }
  int32_t context() const { return context_; }

 private:
  int32_t kv_heads_, head_dim_, context_ = 0, stride_ = 0, table_stride_ = 0;
  DType dtype_;
  int64_t half_bytes_ = 0;
  std::vector<int32_t> slot_, position_, sequence_slot_, sequence_row_, sequence_length_;
  std::vector<int32_t> table_, tokens_;
  std::vector<uint8_t> pool_;
};

// Every |a - b| at most `tolerance`; the message names the worst.
void ExpectClose(const std::vector<float>& expected, const std::vector<float>& actual,
                 double tolerance, const char* what);

// What float32 may lose in a dot product of `k` terms of standard deviation `a` and `b`: the terms
// are added in lanes, so errors grow like the root of the count. Twelve standard deviations of it.
double DotTolerance(int64_t k, double a = 1, double b = 1);

}  // namespace switchyard::kernels
