// Who computes a product: cuBLASLt for bf16 weights and more than 32 rows, if the machine has it;
// else the kernels of matmul.h. On an H200 with 64 rows it reads the weights of qkv, o, down and
// gate/up at 68, 62, 72 and 82% of the read limit, the batched kernel at 52, 49, 68 and 77%; the
// latter spares gate/up the activation, and with up to 32 rows it is level or ahead. And what
// stands around cuBLASLt: the activation of gate and up, and the sum into bf16 where a bias is
// added in float. Both are bound by memory: a thread takes eight results.

#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/matmul_output.cuh"

namespace switchyard::kernels::cuda {
namespace {

constexpr int kThreads = 256, kEach = 8;

__global__ __launch_bounds__(kThreads) void ActivateEach(const MatmulArgs a, const Bf16* gate_up) {
  GridTrigger();
  GridWait();
  const int64_t width = a.n / 2, r = blockIdx.y;
  const int64_t i = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kEach;
  if (i >= width) return;
  const Bf16* from = gate_up + r * a.n + i;
  const uint4 gates = *reinterpret_cast<const uint4*>(from);
  const uint4 ups = *reinterpret_cast<const uint4*>(from + width);
  const auto two = [&](uint32_t gate, uint32_t up, int at) {
    return Pack(GateUp(a, 0, i + at, Low(gate), Low(up)),
                GateUp(a, 0, i + at + 1, High(gate), High(up)));
  };
  *reinterpret_cast<uint4*>(static_cast<Bf16*>(a.out) + r * width + i) = {
      two(gates.x, ups.x, 0), two(gates.y, ups.y, 2), two(gates.z, ups.z, 4),
      two(gates.w, ups.w, 6)};
}

__global__ __launch_bounds__(kThreads) void StoreEach(const float* sums, int64_t count,
                                                      bool accumulate, Bf16* out) {
  GridTrigger();
  GridWait();
  const int64_t i = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kEach;
  if (i >= count) return;
  const float4 low = *reinterpret_cast<const float4*>(sums + i);
  const float4 high = *reinterpret_cast<const float4*>(sums + i + 4);
  uint4* to = reinterpret_cast<uint4*>(out + i);
  const uint4 there = accumulate ? *to : make_uint4(0, 0, 0, 0);
  const auto two = [](uint32_t before, float first, float second) {
    return Pack(Low(before) + first, High(before) + second);
  };
  *to = {two(there.x, low.x, low.y), two(there.y, low.z, low.w), two(there.z, high.x, high.y),
         two(there.w, high.z, high.w)};
}

unsigned BlocksOf(int64_t count) {
  return static_cast<unsigned>((count + kThreads * kEach - 1) / (kThreads * kEach));
}

CublasProduct CublasOf(const MatmulArgs& a) {
  CublasProduct p;
  p.x = a.x;
  p.w = a.w;
  p.rows = a.rows;
  p.n = a.n;
  p.k = a.k;
  p.accumulate = a.accumulate;
  p.f32 = a.output == Output::kF32;
  p.bias = a.bias;
  p.out = a.out;
  p.workspace = a.workspace.data;
  p.workspace_bytes = a.workspace.bytes;
  return p;
}

}  // namespace

bool CudaOps::CublasTakes(const MatmulArgs& a) const {
  if (cublas_ == nullptr || a.rows <= kCublasRows || a.dtype != DType::kBF16 ||
      a.expert != nullptr || a.x_row != nullptr || a.x_divide != 1 || a.norm != nullptr) {
    return false;
  }
  const bool bf16 = a.output == Output::kBf16 && a.bias == nullptr;
  const bool f32 = a.output == Output::kF32 && !(a.softcap > 0);
  return (bf16 || f32) && cublas_->Takes(CublasOf(a));
}

OpError CudaOps::Product(const MatmulArgs& a, const LaunchContext& context) const {
  if (CublasTakes(a)) return cublas_->Multiply(CublasOf(a), context.stream);
  return Matmul(a, options_.gemv_warps, context);
}

OpError ActivateRows(const MatmulArgs& a, const Bf16* gate_up, const LaunchContext& context) {
  return Launch(context, dim3(BlocksOf(a.n / 2), a.rows), kThreads, 0, ActivateEach, a, gate_up);
}

OpError StoreSums(const float* sums, int64_t count, bool accumulate, void* out,
                  const LaunchContext& context) {
  return Launch(context, BlocksOf(count), kThreads, 0, StoreEach, sums, count, accumulate,
                static_cast<Bf16*>(out));
}

}  // namespace switchyard::kernels::cuda
