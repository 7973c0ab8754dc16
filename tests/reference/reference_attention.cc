#include <cmath>
#include <cstring>

#include "tests/reference/reference_parts.h"

namespace switchyard::kernels {
namespace {

// Element `d` of the key or value (by `offset`) of `position`.
char* KvElement(const KvView& kv, int64_t offset, int64_t slot, int64_t position, int64_t head,
                int64_t head_dim, int64_t d) {
  const int64_t block = kv.table[slot * kv.table_stride + position / kv.block_tokens];
  const int64_t in_block = position % kv.block_tokens;
  const int64_t element = (head * kv.block_tokens + in_block) * head_dim + d;
  return static_cast<char*>(kv.base) + block * kv.block_bytes + offset +
         DTypeBytes(kv.dtype, element);
}

void WriteElement(char* at, DType type, double value) {
  const float narrow = static_cast<float>(value);
  if (type == DType::kF32) {
    std::memcpy(at, &narrow, 4);
    return;
  }
  if (type == DType::kF8E4M3) {
    *at = static_cast<char>(ReferenceFp8(narrow));
    return;
  }
  uint32_t bits;
  std::memcpy(&bits, &narrow, 4);
  const uint16_t rounded = static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
  std::memcpy(at, &rounded, 2);
}

void NormAndRotate(double* head, int64_t dim, const float* norm, double eps, const Rope& rope,
                   int32_t position) {
  if (norm != nullptr) {
    double squares = 0;
    for (int64_t i = 0; i < dim; ++i) squares += head[i] * head[i];
    const double factor = 1 / std::sqrt(squares / dim + eps);
    for (int64_t i = 0; i < dim; ++i) head[i] *= factor * norm[i];
  }
  const int64_t half = rope.dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float angle = static_cast<float>(position) * rope.inv_freq[i];  // float, as transformers
    const double c = std::cos(double{angle}) * rope.scale, s = std::sin(double{angle}) * rope.scale;
    const double a = head[i], b = head[i + half];
    head[i] = a * c - b * s;
    head[i + half] = b * c + a * s;
  }
}

}  // namespace

void ReferenceAttentionInput(const AttentionInputArgs& a) {
  const int64_t hidden = a.qkv.k, width = a.qkv.n, dim = a.head_dim;
  for (int64_t t = 0; t < a.rows.rows; ++t) {
    const int64_t slot = a.rows.slot[t], position = a.rows.position[t];
    if (slot < 0) continue;
    const std::vector<double> x =
        ReferenceNorm(static_cast<const float*>(a.x) + t * hidden, a.norm, a.eps, hidden);
    std::vector<double> qkv(width);
    for (int64_t n = 0; n < width; ++n) {
      qkv[n] = ReferenceDot(a.qkv, 0, n, x.data()) + (a.bias != nullptr ? a.bias[n] : 0);
    }
    for (int64_t h = 0; h < a.q_heads + a.kv_heads; ++h) {
      NormAndRotate(&qkv[h * dim], dim, h < a.q_heads ? a.q_norm : a.k_norm, a.eps, a.rope,
                    static_cast<int32_t>(position));
    }
    for (int64_t i = 0; i < a.q_heads * dim; ++i) {
      static_cast<float*>(a.q)[t * a.q_heads * dim + i] = static_cast<float>(qkv[i]);
    }
    for (int64_t h = 0; h < a.kv_heads; ++h) {
      for (int64_t d = 0; d < dim; ++d) {
        WriteElement(KvElement(a.kv, a.kv.key_offset, slot, position, h, dim, d), a.kv.dtype,
                     qkv[(a.q_heads + h) * dim + d]);
        WriteElement(KvElement(a.kv, a.kv.value_offset, slot, position, h, dim, d), a.kv.dtype,
                     qkv[(a.q_heads + a.kv_heads + h) * dim + d]);
      }
    }
  }
}

void ReferenceAttention(const AttentionArgs& a) {
  const int64_t dim = a.head_dim;
  for (int64_t t = 0; t < a.rows.rows; ++t) {
    const int64_t slot = a.rows.slot[t], position = a.rows.position[t];
    if (slot < 0) continue;
    for (int64_t h = 0; h < a.q_heads; ++h) {
      const int64_t kv_head = h / (a.q_heads / a.kv_heads), row = (t * a.q_heads + h) * dim;
      const float* q = static_cast<const float*>(a.q) + row;
      const int64_t low = a.window > 0 ? std::max<int64_t>(0, position - a.window + 1) : 0;
      const auto kv = [&](int64_t offset, int64_t p, int64_t d) {
        return ReferenceFloat(KvElement(a.kv, offset, slot, p, kv_head, dim, d), a.kv.dtype, 0);
      };
      std::vector<double> scores;
      double largest = a.sinks != nullptr ? a.sinks[h] : -1e300;
      for (int64_t p = low; p <= position; ++p) {
        double score = 0;
        for (int64_t d = 0; d < dim; ++d) score += q[d] * kv(a.kv.key_offset, p, d);
        scores.push_back(score * a.scale);
        largest = std::max(largest, scores.back());
      }
      double sum = a.sinks != nullptr ? std::exp(a.sinks[h] - largest) : 0;
      std::vector<double> out(dim);
      for (int64_t p = low; p <= position; ++p) {
        const double e = std::exp(scores[p - low] - largest);
        sum += e;
        for (int64_t d = 0; d < dim; ++d) out[d] += e * kv(a.kv.value_offset, p, d);
      }
      for (int64_t d = 0; d < dim; ++d) {
        static_cast<float*>(a.out)[row + d] = static_cast<float>(out[d] / sum);
      }
    }
  }
}

}  // namespace switchyard::kernels
