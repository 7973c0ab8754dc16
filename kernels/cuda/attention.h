#pragma once

// The parts of Attention. Sequences of one row this step go to the split kernel, others to the
// tiled one: each looks at every sequence and leaves the other's alone, so that one launch fits
// every mix.

#include "kernels/cuda/launch.h"
#include "kernels/ops.h"

namespace switchyard::kernels::cuda {

inline constexpr OpError kNoSuchKv = {"a GPU keeps KV as bf16 or fp8 e4m3"};

// Split decode: how many parts a sequence's keys are cut into, and the floats of scratch.
int DecodeSplits(const AttentionArgs& args, int multiprocessors);
int64_t DecodeScratchFloats(int64_t sequences, int64_t q_heads, int64_t kv_heads, int64_t head_dim,
                            int multiprocessors);

// Head sizes 64, 128 and 256.
bool HasAttentionTile(int32_t head_dim);
OpError DecodeAttention(const AttentionArgs& args, int splits, float* scratch,
                        const LaunchContext& context);
OpError PrefillAttention(const AttentionArgs& args, const LaunchContext& context);

// Of any mix, so that the bits of a row depend on the keys that it sees alone. Head sizes 64, 128
// and 256. `scratch`: for steps whose sequences have one row each.
int64_t InvariantScratchFloats(int64_t sequences, int64_t q_heads, int64_t head_dim);
OpError InvariantAttention(const AttentionArgs& args, float* scratch, const LaunchContext& context);

// Any head size up to 1024; slow.
OpError GenericAttention(const AttentionArgs& args, const LaunchContext& context);

}  // namespace switchyard::kernels::cuda
