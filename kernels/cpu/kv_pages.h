#pragma once

// Where a position's keys and values lie in the paged pool.

#include <cstdint>

#include "kernels/cpu/element_types.h"
#include "kernels/ops.h"

namespace switchyard::kernels {

// Byte offset from KvView::base of head `head`'s keys (or values, by `offset`) at `position` of
// `slot`.
inline int64_t KvOffset(const KvView& kv, int64_t offset, int64_t slot, int64_t position,
                        int64_t head, int64_t head_dim, int64_t element) {
  const int64_t block = kv.table[slot * kv.table_stride + position / kv.block_tokens];
  const int64_t row = head * kv.block_tokens + position % kv.block_tokens;
  return block * kv.block_bytes + offset + row * head_dim * element;
}

inline OpError CheckKv(const KvView& kv) {
  if (kv.dtype == DType::kF32 || kv.dtype == DType::kBF16) return {};
  return {"the CPU keeps KV as f32 or bf16 only"};
}

}  // namespace switchyard::kernels
