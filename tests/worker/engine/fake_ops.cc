#include "tests/worker/engine/fake_ops.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

namespace switchyard::worker {

using kernels::KvView;
using kernels::OpError;

uint32_t Mix(uint32_t a, uint32_t b) {
  uint32_t h = (a ^ 0x9e3779b9u) * 0x85ebca6bu + b * 0xc2b2ae35u;
  h ^= h >> 15;
  h *= 0x27d4eb2fu;
  return h ^ (h >> 13);
}

namespace {

// Activations carry a hash in the bits of a row's first element.
uint32_t* RowOf(void* base, int64_t row, int64_t width) {
  return static_cast<uint32_t*>(base) + row * width;
}
uint32_t ReadRow(const void* base, int64_t row, int64_t width) {
  return static_cast<const uint32_t*>(base)[row * width];
}
uint32_t Bits(const float* vector) { return std::bit_cast<uint32_t>(vector[0]); }
uint32_t FirstWord(const kernels::Matrix& matrix) {
  uint32_t word;
  std::memcpy(&word, matrix.data, sizeof(word));
  return word;
}

// Where the keys (values) of a position begin; all heads' elements carry the same word.
uint32_t* Place(const KvView& kv, int32_t slot, int32_t position, int64_t offset, int32_t head,
                int32_t head_dim) {
  const int32_t block = kv.table[int64_t{slot} * kv.table_stride + position / kv.block_tokens];
  auto* base = static_cast<std::byte*>(kv.base) + block * kv.block_bytes + offset;
  return reinterpret_cast<uint32_t*>(base) +
         (int64_t{head} * kv.block_tokens + position % kv.block_tokens) * head_dim;
}

void WriteKv(const KvView& kv, int32_t slot, int32_t position, uint32_t word, int32_t heads,
             int32_t head_dim) {
  for (int32_t head = 0; head < heads; ++head) {
    for (int32_t d = 0; d < head_dim; ++d) {
      Place(kv, slot, position, kv.key_offset, head, head_dim)[d] = word;
      Place(kv, slot, position, kv.value_offset, head, head_dim)[d] = ~word;
    }
  }
}

}  // namespace

OpError FakeOps::Embed(const kernels::EmbedArgs& args, kernels::Scratch, kernels::Stream) {
  if (on_step) {
    if (OpError error = on_step(args.rows); !error.ok()) return error;
  }
  const uint32_t table = FirstWord(args.table);
  for (int32_t t = 0; t < args.rows.rows; ++t) {
    if (args.rows.slot[t] < 0) continue;  // padding
    const int64_t at = int64_t{args.rows.slot[t]} * args.tokens.stride + args.rows.position[t];
    *RowOf(args.out, t, args.table.k) = Mix(table, args.tokens.ids[at]);
  }
  return {};
}

OpError FakeOps::AttentionInput(const kernels::AttentionInputArgs& args, kernels::Scratch,
                                kernels::Stream) {
  for (int32_t t = 0; t < args.rows.rows; ++t) {
    if (args.rows.slot[t] < 0) continue;
    const int32_t position = args.rows.position[t];
    const uint32_t h =
        Mix(Mix(ReadRow(args.x, t, args.qkv.k), Bits(args.norm)), static_cast<uint32_t>(position));
    WriteKv(args.kv, args.rows.slot[t], position, h, args.kv_heads, args.head_dim);
    *RowOf(args.q, t, int64_t{args.q_heads} * args.head_dim) = h;
  }
  return {};
}

OpError FakeOps::Attention(const kernels::AttentionArgs& args, kernels::Scratch, kernels::Stream) {
  const int64_t width = int64_t{args.q_heads} * args.head_dim;
  for (int32_t t = 0; t < args.rows.rows; ++t) {
    const int32_t slot = args.rows.slot[t];
    if (slot < 0) continue;
    const int32_t position = args.rows.position[t];
    const int32_t first = args.window == 0 ? 0 : std::max(0, position - args.window + 1);
    uint32_t h = ReadRow(args.q, t, width);
    for (int32_t p = first; p <= position; ++p) {
      const int32_t head = args.kv_heads - 1;
      const uint32_t key = *Place(args.kv, slot, p, args.kv.key_offset, head, args.head_dim);
      const uint32_t value = *Place(args.kv, slot, p, args.kv.value_offset, head, args.head_dim);
      if (value != ~key) corrupt = true;
      h = Mix(h, key);
    }
    *RowOf(args.out, t, width) = h;
  }
  return {};
}

OpError FakeOps::Linear(const kernels::LinearArgs& args, kernels::Scratch, kernels::Stream) {
  for (int32_t t = 0; t < args.rows; ++t) {
    uint32_t* out = RowOf(args.out, t, args.w.n);
    *out = Mix(*out, ReadRow(args.x, t, args.w.k));
  }
  return {};
}

OpError FakeOps::MlpInput(const kernels::MlpInputArgs& args, kernels::Scratch, kernels::Stream) {
  for (int32_t t = 0; t < args.rows; ++t) {
    *RowOf(args.out, t, args.gate_up.n / 2) = ReadRow(args.x, t, args.gate_up.k);
  }
  return {};
}

OpError FakeOps::PostNormAdd(const kernels::PostNormAddArgs&, kernels::Scratch, kernels::Stream) {
  return {"the fake model has no post norms"};
}
OpError FakeOps::MoeRoute(const kernels::MoeRouteArgs&, kernels::Scratch, kernels::Stream) {
  return {"the fake model has no experts"};
}
OpError FakeOps::MoeExperts(const kernels::MoeExpertsArgs&, kernels::Scratch, kernels::Stream) {
  return {"the fake model has no experts"};
}

std::vector<float> FakeLogits(uint32_t hash, uint32_t head, int32_t vocabulary) {
  std::vector<float> logits(vocabulary);
  for (int32_t v = 0; v < vocabulary; ++v) {
    logits[v] = static_cast<float>(Mix(Mix(hash, head), v) % 8192) / 1024.0f;
  }
  return logits;
}

OpError FakeOps::Head(const kernels::HeadArgs& args, kernels::Scratch, kernels::Stream) {
  for (int32_t r = 0; r < args.count; ++r) {
    const std::vector<float> logits =
        FakeLogits(ReadRow(args.x, args.row[r], args.w.k), FirstWord(args.w), args.w.n);
    std::copy(logits.begin(), logits.end(), args.logits + int64_t{r} * args.w.n);
  }
  return {};
}

int32_t FakeDraw(const float* logits, int32_t vocabulary, const kernels::SamplingRow& row) {
  int32_t best = 0;
  float best_score = -1;
  for (int32_t v = 0; v < vocabulary; ++v) {
    const uint32_t noise =
        Mix(Mix(static_cast<uint32_t>(row.seed), static_cast<uint32_t>(row.position + 1)), v);
    const float score = logits[v] + row.temperature * static_cast<float>(noise % 4096) / 256.0f;
    if (score > best_score) {
      best = v;
      best_score = score;
    }
  }
  return best;
}

OpError FakeOps::Sample(const kernels::SampleArgs& args, kernels::Scratch, kernels::Stream) {
  for (int32_t r = 0; r < args.count; ++r) {
    const kernels::SamplingRow& row = args.rows[r];
    args.ids[r] = -1;
    if (row.draw == 0 || row.slot < 0) continue;
    args.ids[r] = no_answer && no_answer(row)
                      ? kernels::kNotNumbers
                      : FakeDraw(args.logits + int64_t{r} * args.vocabulary, args.vocabulary, row);
    args.tokens.ids[int64_t{row.slot} * args.tokens.stride + row.position + 1] =
        std::max(args.ids[r], 0);
  }
  return {};
}

float FakeLogprob(const float* logits, int32_t vocabulary, int32_t id) {
  double sum = 0;
  for (int32_t v = 0; v < vocabulary; ++v) sum += std::exp(static_cast<double>(logits[v]));
  return static_cast<float>(logits[id] - std::log(sum));
}

OpError FakeOps::Logprobs(const kernels::LogprobArgs& args, kernels::Scratch, kernels::Stream) {
  for (int32_t r = 0; r < args.count; ++r) {
    const kernels::SamplingRow& row = args.rows[r];
    if (row.slot < 0) continue;
    if (no_answer && no_answer(row)) {
      args.logprob[r] = std::nanf("");
      std::fill_n(args.top_ids + r * args.top, args.top, -1);
      continue;
    }
    const float* logits = args.logits + int64_t{r} * args.vocabulary;
    const int32_t next = args.tokens.ids[int64_t{row.slot} * args.tokens.stride + row.position + 1];
    args.logprob[r] = FakeLogprob(logits, args.vocabulary, next);
    std::vector<int32_t> order(args.vocabulary);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
    for (int32_t k = 0; k < args.top; ++k) {
      args.top_ids[r * args.top + k] = order[k];
      args.top_logprobs[r * args.top + k] = FakeLogprob(logits, args.vocabulary, order[k]);
    }
  }
  return {};
}

}  // namespace switchyard::worker
