// Causal attention over paged KV: chooses the kernels. Sequences of one row take the split kernel,
// longer ones the tiled one; head sizes without a tile take the generic one; where a row may not
// depend on its company, one kernel takes all.

#include "kernels/cuda/attention.h"

#include "kernels/cuda/cuda_ops.h"

namespace switchyard::kernels::cuda {

OpError CudaOps::Attention(const AttentionArgs& args, Scratch scratch, Stream stream) {
  if (args.kv.dtype != DType::kBF16 && args.kv.dtype != DType::kF8E4M3) return kNoSuchKv;
  if (args.kv_heads < 1 || args.q_heads % args.kv_heads != 0) {
    return {"query heads are no multiple of key-value heads"};
  }
  const LaunchContext context = Context(stream);
  const AttentionVariant* variant = ChooseAttention(capability_, args.head_dim, context.invariant);
  if (variant == nullptr) return {"attention heads of more than 1024 elements have no kernel"};
  if (variant->kernel == AttentionKernel::kGeneric) return GenericAttention(args, context);
  ScratchCutter cut(scratch);
  if (variant->kernel == AttentionKernel::kInvariant) {
    float* parts =
        cut.Take<float>(InvariantScratchFloats(args.rows.sequences, args.q_heads, args.head_dim));
    return cut.ok() ? InvariantAttention(args, parts, context) : kScratchTooSmall;
  }
  float* parts = cut.Take<float>(DecodeScratchFloats(
      args.rows.sequences, args.q_heads, args.kv_heads, args.head_dim, multiprocessors_));
  if (!cut.ok()) return kScratchTooSmall;
  if (args.rows.longest > 1) SWITCHYARD_RETURN_IF_OP_ERROR(PrefillAttention(args, context));
  return DecodeAttention(args, DecodeSplits(args, multiprocessors_), parts, context);
}

}  // namespace switchyard::kernels::cuda
