// Who computes a product: cuBLASLt for bf16 weights and more than 32 rows, if the machine has it,
// and for fp8 and int4 ones and more than 128, which become bf16 in the scratch, 128 MiB at a time
// (65 to 128 rows come here in halves; fp8 ones stay as they are and the activations become fp8
// where the model says fast_prefill); else the kernels of matmul.h. On an H200 with 64 rows it
// reads the weights of qkv, o, down and gate/up at 68, 62, 72 and 82% of the read limit, the
// batched kernel at 52, 49, 68 and 77%; the latter spares gate/up the activation, and with up to 32
// rows it is level or ahead. And what stands around cuBLASLt: the activation of gate and up, and
// the sum into bf16 where a bias is added in float. Both are bound by memory: a thread takes eight
// results.

#include <algorithm>

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

// The dequantized weights at the front of a workspace, and so many of their rows at a time.
struct Slices {
  Bf16* weights = nullptr;
  int64_t rows = 0;
  Scratch rest;
};

Slices SlicesOf(const MatmulArgs& a) {
  constexpr int64_t kUnit = 128;
  const int64_t row_bytes = a.k * static_cast<int64_t>(sizeof(Bf16));
  const int64_t room = std::min(a.workspace.bytes - CublasLt::kWorkspaceBytes, kDequantizedBytes);
  int64_t rows = std::min(a.n, room / row_bytes);
  if (rows < a.n) {  // slices of about the same size
    const int64_t most = rows / kUnit * kUnit;
    if (most <= 0) return {};
    const int64_t count = (a.n + most - 1) / most;
    rows = std::min(most, ((a.n + count - 1) / count + kUnit - 1) / kUnit * kUnit);
  }
  const int64_t bytes = (rows * row_bytes + 255) / 256 * 256;
  if (rows <= 0 || bytes + CublasLt::kWorkspaceBytes > a.workspace.bytes) return {};
  char* data = static_cast<char*>(a.workspace.data);
  return {reinterpret_cast<Bf16*>(data), rows, {data + bytes, a.workspace.bytes - bytes}};
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

// Weight rows from `first` on.
CublasProduct SliceOf(const MatmulArgs& a, const Slices& slices, int64_t first) {
  CublasProduct p = CublasOf(a);
  p.w = slices.weights;
  p.n = std::min(slices.rows, a.n - first);
  p.out_stride = a.n;
  if (p.bias != nullptr) p.bias += first;
  p.out = static_cast<char*>(p.out) + first * (p.f32 ? sizeof(float) : sizeof(Bf16));
  p.workspace = slices.rest.data;
  p.workspace_bytes = slices.rest.bytes;
  return p;
}

}  // namespace

bool CudaOps::CublasTakes(const MatmulArgs& a) const {
  if (FastTakes(a)) return true;
  const bool plain = a.dtype == DType::kBF16;
  if (cublas_ == nullptr || a.rows <= (plain ? kCublasRows : kDequantizedRows) ||
      a.expert != nullptr || a.x_row != nullptr || a.x_divide != 1 || a.norm != nullptr) {
    return false;
  }
  const bool bf16 = a.output == Output::kBf16 && a.bias == nullptr;
  const bool f32 = a.output == Output::kF32 && !(a.softcap > 0);
  if (!bf16 && !f32) return false;
  if (plain) return cublas_->Takes(CublasOf(a));
  if (!CanDequantize(a)) return false;
  const Slices slices = SlicesOf(a);
  return slices.weights != nullptr && cublas_->Takes(SliceOf(a, slices, 0)) &&
         cublas_->Takes(SliceOf(a, slices, (a.n - 1) / slices.rows * slices.rows));
}

OpError CudaOps::DequantizedProduct(const MatmulArgs& a, const LaunchContext& context) const {
  const Slices slices = SlicesOf(a);
  for (int64_t first = 0; first < a.n; first += slices.rows) {
    const CublasProduct p = SliceOf(a, slices, first);
    SWITCHYARD_RETURN_IF_OP_ERROR(Dequantize(a, first, p.n, slices.weights, context));
    SWITCHYARD_RETURN_IF_OP_ERROR(cublas_->Multiply(p, context.stream));
  }
  return {};
}

namespace {

// What cuBLASLt is to make of rows of fp8.
CublasProduct FastOf(const MatmulArgs& a, const FastScratch& s) {
  CublasProduct p = CublasOf(a);
  p.fp8 = true;
  p.x = s.x;
  p.bias = nullptr;
  p.accumulate = false;
  if (!p.f32) p.out = s.raw;
  p.workspace = s.rest.data;
  p.workspace_bytes = s.rest.bytes;
  return p;
}

}  // namespace

bool CudaOps::FastTakes(const MatmulArgs& a) const {
  if (!options_.fast_prefill || cublas_ == nullptr || a.rows <= kFastRows ||
      a.dtype != DType::kF8E4M3 || a.group != 0 || a.expert != nullptr || a.x_row != nullptr ||
      a.x_divide != 1 || a.norm != nullptr) {
    return false;
  }
  if (a.output != Output::kBf16 && a.output != Output::kF32) return false;
  FastScratch s;
  return a.n % 16 == 0 && s.Take(a.workspace, std::min(a.rows, kDenseChunk), a) &&
         cublas_->Takes(FastOf(a, s));
}

OpError CudaOps::FastProduct(const MatmulArgs& a, const LaunchContext& context) const {
  const int64_t element = a.output == Output::kF32 ? sizeof(float) : sizeof(Bf16);
  MatmulArgs part = a;
  for (int32_t first = 0; first < a.rows; first += kDenseChunk) {
    part.rows = std::min(kDenseChunk, a.rows - first);
    part.x = a.x + first * a.k;
    part.out = static_cast<char*>(a.out) + first * a.n * element;
    FastScratch s;
    if (!s.Take(a.workspace, part.rows, part)) return kScratchTooSmall;
    SWITCHYARD_RETURN_IF_OP_ERROR(QuantizeActivations(part, s, context));
    SWITCHYARD_RETURN_IF_OP_ERROR(cublas_->Multiply(FastOf(part, s), context.stream));
    SWITCHYARD_RETURN_IF_OP_ERROR(StoreFast(part, s, context));
  }
  return {};
}

OpError CudaOps::Product(const MatmulArgs& a, const LaunchContext& context) const {
  if (FastTakes(a)) return FastProduct(a, context);
  if (CublasTakes(a)) {
    return a.dtype == DType::kBF16 ? cublas_->Multiply(CublasOf(a), context.stream)
                                   : DequantizedProduct(a, context);
  }
  return Matmul(a, context);
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
