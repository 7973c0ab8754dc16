#pragma once

// The op set on a GPU: bf16 activations and KV, float accumulation, one method a file. Every op
// only launches kernels: no allocation, no synchronization, nothing read back, so that each can be
// captured in a graph, once some product has run: cuBLASLt's first makes its handle.

#include <algorithm>
#include <memory>
#include <utility>

#include "kernels/cuda/choose.h"
#include "kernels/cuda/cublas_lt.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/matmul.h"
#include "kernels/ops.h"

namespace switchyard::kernels::cuda {

class CudaOps final : public Ops {
 public:
  // `capability`: whose variants run.
  CudaOps(const CudaOptions& options, int multiprocessors, int capability,
          std::unique_ptr<CublasLt> cublas)
      : options_(options),
        multiprocessors_(multiprocessors),
        capability_(capability),
        programmatic_(options.programmatic_launch && HasProgrammaticLaunch(capability)),
        cublas_(std::move(cublas)) {}

  DType activation() const override { return DType::kBF16; }
  const char* matrix_library() const override {
    return cublas_ != nullptr ? cublas_->version() : "";
  }
  int64_t ScratchBytes(const ScratchShape& shape) const override;

  OpError Embed(const EmbedArgs& args, Scratch scratch, Stream stream) override;
  OpError AttentionInput(const AttentionInputArgs& args, Scratch scratch, Stream stream) override;
  OpError Attention(const AttentionArgs& args, Scratch scratch, Stream stream) override;
  OpError Linear(const LinearArgs& args, Scratch scratch, Stream stream) override;
  OpError PostNormAdd(const PostNormAddArgs& args, Scratch scratch, Stream stream) override;
  OpError MlpInput(const MlpInputArgs& args, Scratch scratch, Stream stream) override;
  OpError MoeRoute(const MoeRouteArgs& args, Scratch scratch, Stream stream) override;
  OpError MoeExperts(const MoeExpertsArgs& args, Scratch scratch, Stream stream) override;
  OpError Head(const HeadArgs& args, Scratch scratch, Stream stream) override;
  OpError Sample(const SampleArgs& args, Scratch scratch, Stream stream) override;
  OpError Logprobs(const LogprobArgs& args, Scratch scratch, Stream stream) override;

 private:
  LaunchContext Context(Stream stream) const {
    return {static_cast<cudaStream_t>(stream), programmatic_, multiprocessors_, capability_,
            options_.batch_invariant};
  }
  // By cuBLASLt, if it is there and takes it, else by the kernels of matmul.h.
  OpError Product(const MatmulArgs& a, const LaunchContext& context) const;
  bool CublasTakes(const MatmulArgs& a) const;
  OpError DequantizedProduct(const MatmulArgs& a, const LaunchContext& context) const;
  bool FastTakes(const MatmulArgs& a) const;
  OpError FastProduct(const MatmulArgs& a, const LaunchContext& context) const;
  // How many of an op's rows its products take at a time, of at most `most`.
  int32_t RowsAtOnce(int32_t rows, const Matrix& w, int32_t most) const;
  // What is left of a scratch buffer that WorkspaceBytes was counted for goes to the product.
  // n, k: of a matrix that is quantized; `adds`: to what is there.
  int64_t WorkspaceBytes(int64_t rows, int64_t n = 0, int64_t k = 0, bool adds = false) const;

  CudaOptions options_;
  int multiprocessors_, capability_;
  bool programmatic_;
  std::unique_ptr<CublasLt> cublas_;  // or null
};

// Rows that an op with a large intermediate takes at a time: bounds its scratch.
constexpr int32_t kRowChunk = 1024;
constexpr int32_t kDenseChunk = 2048;  // of a product that fills the device with fewer blocks
// More rows than these go to cuBLASLt, if there is one.
constexpr int32_t kCublasRows = 32, kCublasGateUpRows = 64;
// More than these where the weights are turned into bf16 first, so many bytes at a time.
constexpr int32_t kDequantizedRows = 64;
// Up to twice as many go in halves: weights read twice are faster than weights made bf16.
constexpr int32_t kHalvedRows = 2 * kDequantizedRows;
constexpr int64_t kDequantizedBytes = int64_t{128} << 20;
// Up to so many rows the experts run one by one, an expert of a row at a time.
constexpr int32_t kEachExpertRows = 4;
// Up to so many the shared expert is one more entry of each; products of their own read it once for
// all rows.
constexpr int32_t kSharedEntryRows = 4;
constexpr int32_t kMostExperts = 1024;

// Cuts one scratch buffer into arrays at multiples of 256 bytes; without a buffer it only counts.
class ScratchCutter {
 public:
  ScratchCutter() = default;
  explicit ScratchCutter(Scratch scratch)
      : base_(static_cast<char*>(scratch.data)), bytes_(scratch.bytes) {}

  template <class T>
  T* Take(int64_t count) {
    const int64_t begin = used_;
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 255) / 256 * 256;
    return base_ != nullptr && used_ <= bytes_ ? reinterpret_cast<T*>(base_ + begin) : nullptr;
  }
  // Null, and nothing taken, where there is no room for it.
  template <class T>
  T* TakeIfRoom(int64_t count) {
    const int64_t bytes = (count * static_cast<int64_t>(sizeof(T)) + 255) / 256 * 256;
    return used_ + bytes <= bytes_ ? Take<T>(count) : nullptr;
  }
  Scratch Rest() const {
    const int64_t left = base_ != nullptr ? std::max<int64_t>(bytes_ - used_, 0) : 0;
    return {left > 0 ? base_ + used_ : nullptr, left};
  }
  int64_t used() const { return used_; }
  bool ok() const { return used_ == 0 || (base_ != nullptr && used_ <= bytes_); }

 private:
  char* base_ = nullptr;
  int64_t bytes_ = 0;
  int64_t used_ = 0;
};

inline constexpr OpError kScratchTooSmall = {"scratch is smaller than ScratchBytes of this shape"};

struct QkvScratch {
  __nv_bfloat16* normed = nullptr;  // [chunk][H]
  float* heads = nullptr;           // [chunk][(Hq + 2 Hkv) D]
  void Take(ScratchCutter& cut, int64_t rows, int64_t hidden, int64_t width);
};
struct NormScratch {
  __nv_bfloat16* normed = nullptr;  // [rows][H]
  void Take(ScratchCutter& cut, int64_t rows, int64_t hidden);
};
struct MoeScratch {
  __nv_bfloat16* inner = nullptr;  // [chunk K][I]; of few rows K + 1 each
  float* down = nullptr;           // [chunk K][H], likewise
  int32_t* entry = nullptr;        // [chunk K] sorted by expert
  int32_t* tile_expert = nullptr;  // [tiles]
  int32_t* tile_first = nullptr;
  int32_t* tile_rows = nullptr;
  int32_t tiles = 0;
  void Take(ScratchCutter& cut, int64_t rows, int64_t chosen, int64_t experts, int64_t intermediate,
            int64_t hidden);
};
constexpr int kSampleChunks = 128;  // of a row without penalties, at most
constexpr int kBuckets = 4096;      // of its histogram
struct SampleScratch {
  float* scores = nullptr;                      // [R][V] of penalized rows
  int32_t* counts = nullptr;                    // [R][V] or the tokens of one bucket
  unsigned long long* bucket_weight = nullptr;  // [R][buckets] of filtered rows
  uint32_t* bucket_tokens = nullptr;            // [R][buckets]
  uint64_t* last_key = nullptr;                 // [R]
  int32_t chunks = 0;                           // of a row
  double* largest = nullptr;                    // [R][chunks][2] a Best each
  double* drawn = nullptr;                      // [R][chunks][2]
  void Take(ScratchCutter& cut, int64_t rows, int64_t vocabulary);
};

// out[r][i] = activation(gate_up[r][i], gate_up[r][width + i]), both biased.
OpError ActivateRows(const MatmulArgs& a, const __nv_bfloat16* gate_up,
                     const LaunchContext& context);
// Rows [first, first + rows) of fp8 or int4 weights as bf16 [rows][k].
bool CanDequantize(const MatmulArgs& a);
OpError Dequantize(const MatmulArgs& a, int64_t first, int64_t rows, __nv_bfloat16* out,
                   const LaunchContext& context);
// fast_prefill: more rows than a decode step has. Rows of x as e4m3, results of those alone.
constexpr int32_t kFastRows = 256;
struct FastScratch {
  uint8_t* x = nullptr;          // [rows][k]
  float* scales = nullptr;       // [rows]
  __nv_bfloat16* raw = nullptr;  // [rows][n] of what is added to others; else a.out
  Scratch rest;
  static int64_t Bytes(int64_t rows, int64_t n, int64_t k, bool adds);
  // Leaves room for cuBLASLt; false where there is too little.
  bool Take(Scratch workspace, int64_t rows, const MatmulArgs& a);
};
OpError QuantizeActivations(const MatmulArgs& a, const FastScratch& s,
                            const LaunchContext& context);
OpError StoreFast(const MatmulArgs& a, const FastScratch& s, const LaunchContext& context);
// out (+)= sums as bf16, `count` of them.
OpError StoreSums(const float* sums, int64_t count, bool accumulate, void* out,
                  const LaunchContext& context);

// Routing of few rows: all of it, or all but the choice, which then is up to who reads the logits.
bool TakesRouteFew(const MoeRouteArgs& a);
bool ChoosesItself(const MoeRouteArgs& a);  // else only logits are computed
OpError RouteFew(const MoeRouteArgs& a, float* logits, const LaunchContext& context);

// out[r] = norm of row r (of row index[r] with an index) of x, as bf16.
OpError NormRows(const void* x, const int32_t* index, const float* norm, float eps, int32_t rows,
                 int64_t width, void* out, const LaunchContext& context);
// Norms the a.rows rows that `x` and `index` name for the product, into `normed`: f16 where it
// takes that, else bf16.
OpError NormForProduct(MatmulArgs& a, const void* x, const int32_t* index, const float* norm,
                       float eps, __nv_bfloat16* normed, const LaunchContext& context);

}  // namespace switchyard::kernels::cuda
