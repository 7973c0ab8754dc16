// Sizes of a model's activation buffers, and their carving out of one allocation.

#include <algorithm>

#include "common/checked.h"
#include "worker/model/transformer.h"

namespace switchyard::worker {
namespace {

constexpr uint64_t kAlignment = 256;

bool AnyLayer(const Architecture& arch, bool moe) {
  return std::any_of(arch.layers.begin(), arch.layers.end(),
                     [moe](const LayerShape& layer) { return layer.moe == moe; });
}

// Hands out aligned pieces of one allocation; without a base it only counts.
class Carver {
 public:
  explicit Carver(void* base) : base_(static_cast<std::byte*>(base)) {}

  template <typename T>
  T* Take(int64_t bytes) {
    const uint64_t at = offset_;
    offset_ = RoundUp(offset_ + static_cast<uint64_t>(bytes), kAlignment);
    return base_ == nullptr || bytes == 0 ? nullptr : reinterpret_cast<T*>(base_ + at);
  }
  uint64_t bytes() const { return offset_; }

 private:
  std::byte* base_;
  uint64_t offset_ = 0;
};

Activations Carve(const Architecture& arch, const kernels::Ops& ops,
                  const kernels::ScratchShape& shape, Carver& carver) {
  const int64_t rows = shape.rows;
  const auto act = [&](int64_t width) {
    return carver.Take<void>(kernels::DTypeBytes(ops.activation(), rows * width));
  };
  const int64_t hidden = arch.hidden;
  const int64_t q = int64_t{arch.q_heads} * arch.head_dim;
  Activations a;
  a.residual = act(hidden);
  a.q = act(q);
  a.attention = act(q);
  a.hidden = act(shape.experts > 0 ? hidden : 0);
  a.branch = act(arch.post_norms ? hidden : 0);
  a.mlp = act(shape.intermediate);
  a.expert_ids = carver.Take<int32_t>(rows * shape.chosen * int64_t{sizeof(int32_t)});
  a.expert_weights = carver.Take<float>(rows * shape.chosen * int64_t{sizeof(float)});
  a.logits =
      carver.Take<float>(int64_t{shape.logit_rows} * shape.vocabulary * int64_t{sizeof(float)});
  a.scratch.bytes = ops.ScratchBytes(shape);
  a.scratch.data = carver.Take<void>(a.scratch.bytes);
  return a;
}

}  // namespace

kernels::ScratchShape ScratchShapeOf(const Architecture& arch, int32_t rows, int32_t sequences,
                                     int32_t logit_rows, int32_t context) {
  const bool moe = AnyLayer(arch, true);
  const int32_t dense = AnyLayer(arch, false) ? arch.intermediate : 0;
  return {.rows = rows,
          .sequences = sequences,
          .logit_rows = logit_rows,
          .hidden = arch.hidden,
          .q_heads = arch.q_heads,
          .kv_heads = arch.kv_heads,
          .head_dim = arch.head_dim,
          .intermediate = std::max(dense, moe ? arch.moe.shared_intermediate : 0),
          .experts = moe ? arch.moe.experts : 0,
          .chosen = moe ? arch.moe.chosen : 0,
          .expert_intermediate = moe ? arch.moe.intermediate : 0,
          .vocabulary = arch.vocabulary,
          .context = context};
}

int64_t ActivationBytes(const Architecture& arch, const kernels::Ops& ops,
                        const kernels::ScratchShape& shape) {
  Carver counter(nullptr);
  Carve(arch, ops, shape, counter);
  return static_cast<int64_t>(counter.bytes());
}

Activations CarveActivations(const Architecture& arch, const kernels::Ops& ops,
                             const kernels::ScratchShape& shape, void* base) {
  Carver carver(base);
  return Carve(arch, ops, shape, carver);
}

}  // namespace switchyard::worker
