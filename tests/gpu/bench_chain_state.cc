// What a chain's ops read and write besides weights: rows, KV, activations, scratch.

#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/gpu/bench_chain.h"
#include "tests/gpu/bench_read.h"

namespace switchyard::bench {

using kernels::DType;
using kernels::SamplingRow;

namespace {

constexpr int32_t kBlockTokens = 16;

std::vector<float> InverseFrequencies(int32_t dim) {
  std::vector<float> frequencies;
  for (int i = 0; i < dim / 2; ++i) frequencies.push_back(std::pow(5e5f, -2.0f * i / dim));
  return frequencies;
}

}  // namespace

template <class T>
T* Chain::Allocate(int64_t count) {
  void* data;
  Check(cudaMalloc(&data, count * sizeof(T)), "allocate");
  owned_.push_back(data);
  return static_cast<T*>(data);
}

template <class T>
T* Chain::Upload(const std::vector<T>& values) {
  T* data = Allocate<T>(values.size());
  Check(cudaMemcpy(data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), "copy");
  return data;
}

void* Chain::RandomActivations(int64_t width, uint32_t seed) {
  void* data = Allocate<uint16_t>(rows_ * width);
  FillRandom(data, rows_ * width, 1.0f, seed, stream_);
  return data;
}

Chain::Chain(const Shape& shape, const Forms& forms, int32_t rows, int32_t sequences,
             int32_t context, cudaStream_t stream, DType kv)
    : shape_(shape),
      rows_(rows),
      sequences_(sequences),
      context_(context),
      stream_(stream),
      model_(shape, forms, stream) {
  MakeRows();
  MakeKv(kv);
  inv_freq_ = Upload(InverseFrequencies(shape.rope_dim));
  const int64_t heads = int64_t{shape.q_heads} * shape.head_dim;
  x_ = RandomActivations(shape.hidden, 3);
  q_ = RandomActivations(heads, 4);
  attention_ = RandomActivations(heads, 5);
  inner_ = RandomActivations(std::max(shape.inner, shape.mixture.shared_inner), 6);
  if (shape.post_norms) branch_ = RandomActivations(shape.hidden, 7);
  if (shape.mixture.experts > 0) MakeChoices();
  MakeSampling();
  MakeScratch(forms.layers.dtype != DType::kBF16);
}

Chain::~Chain() {
  for (void* data : owned_) cudaFree(data);
}

void Chain::MakeRows() {
  const int32_t each = rows_ / sequences_;
  std::vector<int32_t> slot(rows_), position(rows_), head_row(sequences_);
  std::vector<int32_t> sequence_slot(sequences_), sequence_row(sequences_ + 1);
  std::iota(sequence_slot.begin(), sequence_slot.end(), 0);
  for (int32_t r = 0; r < rows_; ++r) {
    slot[r] = r / each;
    position[r] = context_ - each + r % each;
  }
  for (int32_t s = 0; s <= sequences_; ++s) sequence_row[s] = s * each;
  for (int32_t s = 0; s < sequences_; ++s) head_row[s] = (s + 1) * each - 1;
  step_ = {.rows = rows_,
           .sequences = sequences_,
           .longest = each,
           .slot = Upload(slot),
           .position = Upload(position),
           .sequence_slot = Upload(sequence_slot),
           .sequence_row = Upload(sequence_row),
           .sequence_length = Upload(std::vector<int32_t>(sequences_, context_))};
  head_row_ = Upload(head_row);
  tokens_ = {Upload(std::vector<int32_t>(sequences_ * (context_ + 2), 17)), context_ + 2};
}

void Chain::MakeKv(DType dtype) {
  const int32_t blocks = (context_ + kBlockTokens - 1) / kBlockTokens;
  std::vector<int32_t> table(sequences_ * blocks);
  std::iota(table.begin(), table.end(), 0);
  const int64_t half =
      int64_t{shape_.kv_heads} * kBlockTokens * shape_.head_dim * kernels::DTypeBytes(dtype, 1);
  kv_.block_bytes = 2 * half * shape_.layers;
  const int64_t bytes = kv_.block_bytes * static_cast<int64_t>(table.size());
  kv_.base = Allocate<char>(bytes);
  FillRandom(kv_.base, bytes / 2, 1.0f, 2, stream_);
  kv_.table = Upload(table);
  kv_.table_stride = blocks;
  kv_.block_tokens = kBlockTokens;
  kv_.value_offset = half;
  kv_.dtype = dtype;
}

// Until a step has chosen for itself: some experts, others in every layer and for every row.
void Chain::MakeChoices() {
  const MixtureShape& m = shape_.mixture;
  normed_ = RandomActivations(shape_.hidden, 8);
  std::vector<int32_t> ids(int64_t{shape_.layers} * rows_ * m.chosen);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i * 5 % m.experts);
  expert_ids_ = Upload(ids);
  expert_weights_ = Upload(std::vector<float>(ids.size(), 1.0f / m.chosen));
}

void Chain::MakeSampling() {
  sampling_rows_.resize(sequences_);
  for (int32_t s = 0; s < sequences_; ++s) {
    sampling_rows_[s].slot = s;
    sampling_rows_[s].position = context_ - 1;
    sampling_rows_[s].seed = s;
  }
  sampling_ = Upload(sampling_rows_);
  ids_ = Allocate<int32_t>(sequences_);
  logits_ = Allocate<float>(int64_t{sequences_} * shape_.vocabulary);
}

// Enough for every kind of ops that the benchmark makes.
void Chain::MakeScratch(bool quantized) {
  const MixtureShape& m = shape_.mixture;
  const kernels::ScratchShape shape = {.rows = rows_,
                                       .sequences = sequences_,
                                       .logit_rows = sequences_,
                                       .hidden = shape_.hidden,
                                       .q_heads = shape_.q_heads,
                                       .kv_heads = shape_.kv_heads,
                                       .head_dim = shape_.head_dim,
                                       .intermediate = std::max(shape_.inner, m.shared_inner),
                                       .experts = m.experts,
                                       .chosen = m.chosen,
                                       .expert_intermediate = m.inner,
                                       .vocabulary = shape_.vocabulary,
                                       .context = context_,
                                       .quantized = quantized};
  kernels::CudaOptions fast, invariant;
  fast.fast_prefill = true;
  invariant.batch_invariant = true;
  for (const kernels::CudaOptions& options : {kernels::CudaOptions(), fast, invariant}) {
    const auto ops = kernels::MakeCudaOps(options, nullptr);
    if (ops != nullptr) scratch_.bytes = std::max(scratch_.bytes, ops->ScratchBytes(shape));
  }
  scratch_.data = Allocate<char>(scratch_.bytes);
}

}  // namespace switchyard::bench
