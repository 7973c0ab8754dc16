// What the ops share: construction and the size of the scratch.

#include "kernels/cuda/cuda_ops.h"

#include <cuda_bf16.h>

#include <algorithm>

#include "kernels/cuda/attention.h"

namespace switchyard::kernels::cuda {

void QkvScratch::Take(ScratchCutter& cut, int64_t rows, int64_t hidden, int64_t width) {
  rows = std::min<int64_t>(rows, kDenseChunk);
  normed = cut.Take<__nv_bfloat16>(rows * hidden);
  heads = cut.Take<float>(rows * width);
}

void NormScratch::Take(ScratchCutter& cut, int64_t rows, int64_t hidden) {
  normed = cut.Take<__nv_bfloat16>(rows * hidden);
}

void MoeScratch::Take(ScratchCutter& cut, int64_t rows, int64_t chosen, int64_t experts,
                      int64_t intermediate, int64_t hidden) {
  const int64_t entries = std::min<int64_t>(rows, kRowChunk) * chosen;
  const int64_t shared = std::min<int64_t>(rows, kSharedEntryRows);
  inner = cut.Take<__nv_bfloat16>((entries + shared) * intermediate);
  down = cut.Take<float>((entries + shared) * hidden);
  entry = cut.Take<int32_t>(entries);
  tiles = static_cast<int32_t>(entries / kSmallTileRows + std::min(experts, entries));
  tile_expert = cut.Take<int32_t>(tiles);
  tile_first = cut.Take<int32_t>(tiles);
  tile_rows = cut.Take<int32_t>(tiles);
}

void SampleScratch::Take(ScratchCutter& cut, int64_t rows, int64_t vocabulary) {
  scores = cut.Take<float>(rows * vocabulary);
  counts = cut.Take<int32_t>(rows * vocabulary);
  bucket_weight = cut.Take<unsigned long long>(rows * kBuckets);
  bucket_tokens = cut.Take<uint32_t>(rows * kBuckets);
  last_key = cut.Take<uint64_t>(rows);
  largest = cut.Take<double>(rows * kSampleChunks * 2);
  drawn = cut.Take<double>(rows * kSampleChunks * 2);
}

int64_t CudaOps::WorkspaceBytes(int64_t rows, int64_t n, int64_t k, bool adds) const {
  const int64_t batch = BatchWorkspaceBytes(
      static_cast<int32_t>(std::min<int64_t>(rows, kBatchRows)), multiprocessors_);
  static_assert(kDequantizedRows >= kCublasRows);
  int64_t library = cublas_ != nullptr && rows > kCublasRows ? CublasLt::kWorkspaceBytes : 0;
  if (cublas_ != nullptr && rows > kDequantizedRows && n > 0) {
    const int64_t bytes = n * k * static_cast<int64_t>(sizeof(__nv_bfloat16));
    int64_t front = std::min((bytes + 255) / 256 * 256, kDequantizedBytes);
    if (options_.fast_prefill && rows > kFastRows) {
      front = std::max(front, FastScratch::Bytes(std::min<int64_t>(rows, kDenseChunk), n, k, adds));
    }
    library += front;
  }
  return std::max(batch, library);
}

int32_t CudaOps::RowsAtOnce(int32_t rows, const Matrix& w, int32_t most) const {
  const bool halved =
      cublas_ != nullptr && !IsPlain(w.dtype) && rows > kDequantizedRows && rows <= kHalvedRows;
  return std::min(rows, halved ? kDequantizedRows : most);
}

int64_t CudaOps::ScratchBytes(const ScratchShape& s) const {
  const int64_t rows = s.rows, hidden = s.hidden, quantized = s.quantized ? 1 : 0;
  int64_t most = 0;
  const auto op = [&](auto take) {
    ScratchCutter cut;
    take(cut);
    most = std::max(most, cut.used());
  };
  op([&](ScratchCutter& cut) {  // AttentionInput
    const int64_t heads = s.q_heads + 2 * int64_t{s.kv_heads};
    QkvScratch().Take(cut, rows, hidden, heads * s.head_dim);
    cut.Take<char>(WorkspaceBytes(rows, quantized * heads * s.head_dim, hidden));
  });
  op([&](ScratchCutter& cut) {  // Attention
    cut.Take<float>(options_.batch_invariant
                        ? InvariantScratchFloats(s.sequences, s.q_heads, s.head_dim)
                        : DecodeScratchFloats(s.sequences, s.q_heads, s.kv_heads, s.head_dim,
                                              multiprocessors_));
  });
  const int64_t chunk = std::min<int64_t>(rows, kDenseChunk);
  op([&](ScratchCutter& cut) {  // Linear
    if (cublas_ != nullptr) cut.Take<float>(chunk * hidden);
    const int64_t width = std::max<int64_t>(int64_t{s.q_heads} * s.head_dim, s.intermediate);
    cut.Take<char>(WorkspaceBytes(rows, quantized * hidden, width, true));
  });
  op([&](ScratchCutter& cut) {  // MlpInput
    NormScratch().Take(cut, chunk, hidden);
    if (cublas_ != nullptr) cut.Take<__nv_bfloat16>(chunk * 2 * s.intermediate);
    cut.Take<char>(WorkspaceBytes(rows, quantized * 2 * s.intermediate, hidden));
  });
  op([&](ScratchCutter& cut) {  // MoeRoute
    if (s.experts == 0) return;
    cut.Take<float>(rows * s.experts);
    cut.Take<char>(WorkspaceBytes(rows));
  });
  op([&](ScratchCutter& cut) {
    if (s.experts == 0) return;
    MoeScratch().Take(cut, rows, s.chosen, s.experts, s.expert_intermediate, hidden);
  });
  op([&](ScratchCutter& cut) {  // Head
    NormScratch().Take(cut, s.logit_rows, hidden);
    cut.Take<char>(WorkspaceBytes(s.logit_rows));
  });
  // A caller that samples one tile may leave logit_rows out.
  op([&](ScratchCutter& cut) {
    SampleScratch().Take(cut, std::max(1, s.logit_rows), s.vocabulary);
  });
  return most;
}

}  // namespace switchyard::kernels::cuda

namespace switchyard::kernels {
namespace {

__global__ void Nothing() {}

// Whether this program has machine code, or code to make some from, for the GPU that is there.
cudaError_t FindCode() {
  cudaFuncAttributes attributes;
  const cudaError_t found = cudaFuncGetAttributes(&attributes, Nothing);
  if (found != cudaSuccess) (void)cudaGetLastError();
  return found;
}

}  // namespace

std::unique_ptr<Ops> MakeCudaOps(const CudaOptions& options, OpError* error) {
  // cuBLASLt has variants of its own, by the device that is there and by the number of rows.
  const bool cublas = options.cublas && options.capability == 0 && !options.batch_invariant;
  if (options.plan_multiprocessors > 0) {
    return std::make_unique<cuda::CudaOps>(options, options.plan_multiprocessors,
                                           cuda::kLowestCapability,
                                           cublas ? cuda::CublasLt::Open() : nullptr);
  }
  int device = 0, multiprocessors = 0, major = 0, minor = 0;
  cudaError_t status = cudaGetDevice(&device);
  const auto read = [&](int* value, cudaDeviceAttr attribute) {
    if (status == cudaSuccess) status = cudaDeviceGetAttribute(value, attribute, device);
  };
  read(&multiprocessors, cudaDevAttrMultiProcessorCount);
  read(&major, cudaDevAttrComputeCapabilityMajor);
  read(&minor, cudaDevAttrComputeCapabilityMinor);
  const auto refuse = [&](const char* why) -> std::unique_ptr<Ops> {
    if (error != nullptr) *error = {why};
    return nullptr;
  };
  if (status != cudaSuccess) return refuse(cudaGetErrorString(status));
  const int own = major * 10 + minor;
  const int capability = options.capability != 0 ? options.capability : own;
  if (std::min(own, capability) < cuda::kLowestCapability) {
    return refuse("GPUs below compute capability 8.0 have no bf16 tensor cores");
  }
  const cudaError_t code = FindCode();
  if (code == cudaErrorNoKernelImageForDevice || code == cudaErrorInvalidDeviceFunction) {
    return refuse(
        "the build has no code for this GPU's compute capability: build on this machine, or with "
        "-DSWITCHYARD_CUDA_ARCHITECTURES for it");
  }
  if (code != cudaSuccess) return refuse(cudaGetErrorString(code));
  if (cuda::SharedLimit(capability) > cuda::SharedLimit(own) ||
      cuda::HasProgrammaticLaunch(capability) > cuda::HasProgrammaticLaunch(own)) {
    return refuse("this GPU cannot run the variants of that compute capability");
  }
  std::unique_ptr<cuda::CublasLt> library = cublas ? cuda::CublasLt::Open() : nullptr;
  if (options.fast_prefill && (library == nullptr || own < cuda::kFp8Capability)) {
    return refuse("fast_prefill needs cuBLASLt and a GPU of compute capability 8.9 or later");
  }
  return std::make_unique<cuda::CudaOps>(options, multiprocessors, capability, std::move(library));
}

}  // namespace switchyard::kernels
