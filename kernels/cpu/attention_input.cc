// q = rope(norm_q(Wq norm(x) + bq)) to the activations; k likewise and v to the KV pool.
//
// Three passes: the norm over rows, the product over output columns, then norm of the heads,
// rotation and the writes over rows. The last works on a few kilobytes a row that are in cache; its
// sines are computed once a row, from the float32 angle as transformers has it.

#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/kv_pages.h"
#include "kernels/cpu/matmul.h"
#include "kernels/cpu/vectors.h"

namespace switchyard::kernels {
namespace {

constexpr int32_t kMaxRopeDim = 1024;

struct Rotation {
  float cosine[kMaxRopeDim / 2];
  float sine[kMaxRopeDim / 2];
};

void MakeRotation(const Rope& rope, int32_t position, Rotation& rotation) {
  for (int32_t i = 0; i < rope.dim / 2; ++i) {
    const float angle = static_cast<float>(position) * rope.inv_freq[i];
    rotation.cosine[i] = std::cos(angle) * rope.scale;
    rotation.sine[i] = std::sin(angle) * rope.scale;
  }
}

void Rotate(const Rotation& rotation, int32_t half, float* x) {
  for (int32_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    x[i] = a * rotation.cosine[i] - b * rotation.sine[i];
    x[i + half] = b * rotation.cosine[i] + a * rotation.sine[i];
  }
}

void WriteKv(const KvView& kv, int64_t byte_offset, const float* x, int32_t count) {
  char* at = static_cast<char*>(kv.base) + byte_offset;
  if (kv.dtype == DType::kF32) {
    std::copy_n(x, count, reinterpret_cast<float*>(at));
  } else {
    Bf16* out = reinterpret_cast<Bf16*>(at);
    for (int32_t i = 0; i < count; ++i) out[i] = ToBf16(x[i]);
  }
}

}  // namespace

OpError CpuOps::AttentionInput(const AttentionInputArgs& args, Scratch scratch, Stream stream) {
  if (OpError error = CheckMatrix(args.qkv); !error.ok()) return error;
  if (OpError error = CheckKv(args.kv); !error.ok()) return error;
  if (args.rope.dim > kMaxRopeDim) return {"rope over more than 1024 elements of a head"};
  const int64_t rows = args.rows.rows, hidden = args.qkv.k, width = args.qkv.n;
  const int32_t dim = args.head_dim;
  ScratchCutter cut(scratch);
  float* matmul = TakeMatmulScratch(cut);
  float* normed = cut.Take<float>(rows * hidden);
  float* qkv = cut.Take<float>(rows * width);
  if (!cut.ok()) return kScratchTooSmall;

  NormRows(static_cast<const float*>(args.x), nullptr, args.norm, args.eps, rows, hidden, normed);
  const MatmulInput in = {normed, hidden, nullptr, rows};
  const MatmulOutput out = {qkv, width, 0, args.bias, false};
  pool_.ParallelFor(width, MatmulGrain(rows, hidden), [&](int thread, int64_t begin, int64_t end) {
    MatmulColumns(in, args.qkv, 0, begin, end, out, OfThread(matmul, thread));
  });

  float* q = static_cast<float*>(args.q);
  const int64_t element = DTypeBytes(args.kv.dtype, 1);
  pool_.ParallelFor(rows, 8192 / width + 1, [&](int, int64_t begin, int64_t end) {
    Rotation rotation;
    const auto finish_head = [&](float* head, const float* norm) {
      if (norm != nullptr) RmsNorm(head, norm, args.eps, dim, head);
      if (args.rope.dim > 0) Rotate(rotation, args.rope.dim / 2, head);
    };
    for (int64_t t = begin; t < end; ++t) {
      float* row = qkv + t * width;
      const int64_t slot = args.rows.slot[t], position = args.rows.position[t];
      if (slot < 0) {
        std::fill_n(q + t * args.q_heads * dim, args.q_heads * dim, 0.0f);
        continue;
      }
      MakeRotation(args.rope, static_cast<int32_t>(position), rotation);
      for (int32_t h = 0; h < args.q_heads; ++h) finish_head(row + h * dim, args.q_norm);
      std::copy_n(row, args.q_heads * dim, q + t * args.q_heads * dim);
      float* keys = row + args.q_heads * dim;
      const float* values = keys + args.kv_heads * dim;
      for (int32_t h = 0; h < args.kv_heads; ++h) {
        finish_head(keys + h * dim, args.k_norm);
        const auto at = [&](int64_t offset) {
          return KvOffset(args.kv, offset, slot, position, h, dim, element);
        };
        WriteKv(args.kv, at(args.kv.key_offset), keys + h * dim, dim);
        WriteKv(args.kv, at(args.kv.value_offset), values + h * dim, dim);
      }
    }
  });
  return {};
}

}  // namespace switchyard::kernels
