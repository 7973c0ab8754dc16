#include "tests/gpu/bench_chain.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>

#include "tests/gpu/bench_read.h"

namespace switchyard::bench {

using kernels::DType;
using kernels::Matrix;
using kernels::OpError;
using kernels::SamplingRow;
using M = Llama8B;

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

Chain::Chain(int32_t rows, int32_t sequences, int32_t context, cudaStream_t stream,
             const WeightFormat& format, DType kv)
    : rows_(rows),
      sequences_(sequences),
      context_(context),
      stream_(stream),
      weights_(format, stream) {
  constexpr int64_t kHeads = (M::kQHeads + 2 * M::kKvHeads) * M::kDim;
  for (int i = 0; i < M::kLayers; ++i) {
    Layer l;
    l.qkv = weights_.Take(kHeads, M::kHidden);
    l.o = weights_.Take(M::kHidden, M::kQHeads * M::kDim);
    l.gate_up = weights_.Take(2 * M::kInner, M::kHidden);
    l.down = weights_.Take(M::kHidden, M::kInner);
    layers_.push_back(l);
  }
  head_ = weights_.Take(M::kVocabulary, M::kHidden);

  const int32_t each = rows / sequences, blocks = (context + M::kBlockTokens - 1) / M::kBlockTokens;
  std::vector<int32_t> slot(rows), position(rows), sequence_slot(sequences),
      sequence_row(sequences + 1), length(sequences, context), table(sequences * blocks);
  std::iota(sequence_slot.begin(), sequence_slot.end(), 0);
  std::iota(table.begin(), table.end(), 0);
  for (int32_t r = 0; r < rows; ++r) {
    slot[r] = r / each;
    position[r] = context - each + r % each;
  }
  for (int32_t s = 0; s <= sequences; ++s) sequence_row[s] = s * each;
  step_ = {rows,
           sequences,
           each,
           Upload(slot),
           Upload(position),
           Upload(sequence_slot),
           Upload(sequence_row),
           Upload(length)};
  tokens_ = {Upload(std::vector<int32_t>(sequences * (context + 2), 17)), context + 2};
  const int64_t half =
      int64_t{M::kKvHeads} * M::kBlockTokens * M::kDim * kernels::DTypeBytes(kv, 1);
  kv_.block_bytes = 2 * half * M::kLayers;
  kv_.base = Allocate<char>(kv_.block_bytes * table.size());
  FillRandom(kv_.base, kv_.block_bytes * table.size() / 2, 1.0f, 2, stream);
  kv_.table = Upload(table);
  kv_.table_stride = blocks;
  kv_.block_tokens = M::kBlockTokens;
  kv_.value_offset = half;
  kv_.dtype = kv;
  norm_ = Upload(std::vector<float>(M::kHidden, 1.0f));
  std::vector<float> inv_freq;
  for (int i = 0; i < M::kDim / 2; ++i) inv_freq.push_back(std::pow(5e5f, -2.0f * i / M::kDim));
  inv_freq_ = Upload(inv_freq);
  x_ = Allocate<uint16_t>(int64_t{rows} * M::kHidden);
  FillRandom(x_, int64_t{rows} * M::kHidden, 1.0f, 3, stream);
  q_ = Allocate<uint16_t>(int64_t{rows} * M::kHidden);
  FillRandom(q_, int64_t{rows} * M::kHidden, 1.0f, 4, stream);
  attention_ = Allocate<uint16_t>(int64_t{rows} * M::kHidden);
  FillRandom(attention_, int64_t{rows} * M::kHidden, 1.0f, 5, stream);
  inner_ = Allocate<uint16_t>(int64_t{rows} * M::kInner);
  FillRandom(inner_, int64_t{rows} * M::kInner, 1.0f, 6, stream);
  std::vector<int32_t> head_row(sequences);
  sampling_rows_.resize(sequences);
  for (int32_t s = 0; s < sequences; ++s) {
    head_row[s] = (s + 1) * each - 1;
    sampling_rows_[s].slot = s;
    sampling_rows_[s].position = context - 1;
    sampling_rows_[s].seed = s;
  }
  head_row_ = Upload(head_row);
  sampling_ = Upload(sampling_rows_);
  ids_ = Allocate<int32_t>(sequences);
  logits_ = Allocate<float>(int64_t{sequences} * M::kVocabulary);
  kernels::ScratchShape shape;
  shape.rows = rows;
  shape.sequences = shape.logit_rows = sequences;
  shape.hidden = M::kHidden;
  shape.q_heads = M::kQHeads;
  shape.kv_heads = M::kKvHeads;
  shape.head_dim = M::kDim;
  shape.intermediate = M::kInner;
  shape.vocabulary = M::kVocabulary;
  shape.context = context;
  shape.quantized = format.dtype != DType::kBF16;
  kernels::CudaOptions fast, invariant;
  fast.fast_prefill = true;
  invariant.batch_invariant = true;
  for (const kernels::CudaOptions& options : {kernels::CudaOptions(), fast, invariant}) {
    const auto ops = kernels::MakeCudaOps(options, nullptr);
    if (ops != nullptr) scratch_.bytes = std::max(scratch_.bytes, ops->ScratchBytes(shape));
  }
  scratch_.data = Allocate<char>(scratch_.bytes);
}

Chain::~Chain() {
  for (void* data : owned_) cudaFree(data);
}

void Chain::Launch(kernels::Ops& ops, const Parts& parts) {
  const auto ok = [](OpError error) {
    if (error.ok()) return;
    std::fprintf(stderr, "%s\n", error.message);
    std::exit(1);
  };
  if (parts.embed) ok(ops.Embed({step_, tokens_, head_, 1.0f, x_}, scratch_, stream_));
  for (int i = 0; i < M::kLayers; ++i) {
    const Layer& l = layers_[i];
    kernels::KvView kv = kv_;
    kv.key_offset = i * 2 * kv_.value_offset;
    kv.value_offset = kv.key_offset + kv_.value_offset;
    if (parts.attention_input) {
      kernels::AttentionInputArgs a;
      a.rows = step_;
      a.x = x_;
      a.norm = norm_;
      a.eps = 1e-5f;
      a.qkv = l.qkv;
      a.q_heads = M::kQHeads;
      a.kv_heads = M::kKvHeads;
      a.head_dim = M::kDim;
      a.rope = {inv_freq_, M::kDim, 1.0f};
      a.kv = kv;
      a.q = q_;
      ok(ops.AttentionInput(a, scratch_, stream_));
    }
    if (parts.attention) {
      kernels::AttentionArgs a;
      a.rows = step_;
      a.q = q_;
      a.q_heads = M::kQHeads;
      a.kv_heads = M::kKvHeads;
      a.head_dim = M::kDim;
      a.scale = 0.088388f;
      a.kv = kv;
      a.out = attention_;
      ok(ops.Attention(a, scratch_, stream_));
    }
    if (parts.output)
      ok(ops.Linear({rows_, attention_, l.o, nullptr, true, x_}, scratch_, stream_));
    if (parts.mlp) {
      kernels::MlpInputArgs a = {rows_, x_, norm_, 1e-5f, l.gate_up};
      a.out = inner_;
      ok(ops.MlpInput(a, scratch_, stream_));
    }
    if (parts.down) ok(ops.Linear({rows_, inner_, l.down, nullptr, true, x_}, scratch_, stream_));
  }
  if (parts.head) {
    ok(ops.Head({sequences_, head_row_, x_, norm_, 1e-5f, head_, 0, logits_}, scratch_, stream_));
  }
  if (parts.sample) {
    ok(ops.Sample({sequences_, M::kVocabulary, logits_, sampling_, tokens_, ids_}, scratch_,
                  stream_));
  }
}

int64_t Chain::ProductBytes(const Parts& parts) const {
  const auto bytes = [](const Matrix& m) { return MatrixBytes(m); };
  const Layer& l = layers_[0];
  const int64_t layer = (parts.attention_input ? bytes(l.qkv) : 0) +
                        (parts.output ? bytes(l.o) : 0) + (parts.mlp ? bytes(l.gate_up) : 0) +
                        (parts.down ? bytes(l.down) : 0);
  return layer * M::kLayers + (parts.head ? bytes(head_) : 0);
}

int64_t Chain::KvBytes() const {
  return int64_t{sequences_} * context_ * M::kLayers * 2 * M::kKvHeads *
         kernels::DTypeBytes(kv_.dtype, M::kDim);
}

double Chain::AttentionFlops() const {
  return 2.0 * rows_ * (rows_ + 1) * M::kQHeads * M::kDim * M::kLayers;
}

void Chain::Filter(int32_t top_k, float top_p) {
  for (SamplingRow& row : sampling_rows_) {
    row.top_k = top_k;
    row.top_p = top_p;
  }
  Check(cudaMemcpy(sampling_, sampling_rows_.data(), sampling_rows_.size() * sizeof(SamplingRow),
                   cudaMemcpyHostToDevice),
        "copy");
}

double Chain::ProductFlops(const Parts& parts) const {
  const auto products = [](const Matrix& m) { return 2.0 * m.n * m.k; };
  const Layer& l = layers_[0];
  const double layer = (parts.attention_input ? products(l.qkv) : 0) +
                       (parts.output ? products(l.o) : 0) + (parts.mlp ? products(l.gate_up) : 0) +
                       (parts.down ? products(l.down) : 0);
  return layer * M::kLayers * rows_ + (parts.head ? products(head_) * sequences_ : 0);
}

}  // namespace switchyard::bench
