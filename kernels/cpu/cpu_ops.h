#pragma once

// The op set on the CPU: float32 activations, one method a file. Every op checks its types and its
// scratch, then runs on the thread pool and has finished when it returns. Nothing is allocated
// after construction.

#include "kernels/cpu/scratch.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/ops.h"

namespace switchyard::kernels {

class CpuOps final : public Ops {
 public:
  explicit CpuOps(int threads);

  DType activation() const override { return DType::kF32; }
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
  // Private floats of each thread for MatmulColumns: thread t's start at t * matmul_floats_.
  float* TakeMatmulScratch(ScratchCutter& cut) const {
    return cut.Take<float>(matmul_floats_ * pool_.threads());
  }
  float* OfThread(float* matmul_scratch, int thread) const {
    return matmul_scratch + thread * matmul_floats_;
  }
  // out[r] = norm of row r (of row index[r] with an index), on all threads.
  void NormRows(const float* x, const int32_t* index, const float* norm, float eps, int64_t rows,
                int64_t width, float* out);

  ThreadPool pool_;
  int64_t matmul_floats_;
};

// What each op takes from its scratch; only counts without a buffer. `threads`: of the pool.
struct AttentionScratch {
  int32_t* first_row = nullptr;  // of each tile of rows
  float* tiles = nullptr;        // one tile's work a thread
  int64_t tile_floats = 0;
  float* segments = nullptr;  // states of segments, where a sequence is split over threads
  int64_t segment_room = 0;
  void Take(ScratchCutter& cut, int threads, int64_t rows, int32_t head_dim, int64_t context);
};
struct SampleScratch {  // one row a thread, each
  float* scores = nullptr;
  float* probabilities = nullptr;
  int32_t* counts = nullptr;
  void Take(ScratchCutter& cut, int threads, int64_t vocabulary);
};
struct MoeScratch {
  int32_t* first = nullptr;  // [E + 1] each expert's first entry
  int32_t* fill = nullptr;   // [E]
  int32_t* token = nullptr;  // [T K] row of each entry, entries of one expert together
  int32_t* entry = nullptr;  // [T K] entry of each (row, choice)
  float* gate = nullptr;     // [T K][I]
  float* up = nullptr;       // [T K][I]
  float* down = nullptr;     // [T K][H]
  void Take(ScratchCutter& cut, int64_t rows, int64_t chosen, int64_t experts, int64_t intermediate,
            int64_t hidden);
};

}  // namespace switchyard::kernels
