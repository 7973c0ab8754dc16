#pragma once

// One matrix product in front of its variants (chosen by choose.h); the ops see only Matmul().
// Result (r, n) is the dot product of weight row n with x row r, then biased and stored as `output`
// says.
//
//   variant     rows      weights    limit
//   Stream      1 to 8    not f      memory: tensor cores on weights through a ring of a block; of
//                                    quantized ones 1 to 4 rows, one if they are wider than 8192;
//                                    of any as many as there is room for
//   Batch       2 to 128  bf16       memory: tensor cores on weights through shared memory
//   QuantBatch  1 to 64   quantized  instructions: weights become bf16 in registers
//   Tiled       above     any        tensor cores; quantized weights become bf16 in registers
//   Generic     any       any        none: odd widths, f32 and f16 weights
//
// Where results may not depend on the number of rows (LaunchContext::invariant), Batch and Tiled
// take those of Stream and QuantBatch too. Both add up a result's products in the order of k,
// sixteen at a time, by the same instruction; where k is cut into parts they would not, so then it
// is not.
//
// Of experts, every result row has its own: Stream for few rows, Tiled over rows grouped by expert.

#include "kernels/cuda/choose.h"
#include "kernels/cuda/launch.h"
#include "kernels/ops.h"

struct __nv_bfloat16;

namespace switchyard::kernels::cuda {

enum class Output : uint8_t {
  kBf16,    // out bf16 [rows][n]; plus what is there if `accumulate`
  kF32,     // out f32 [rows][n]; `softcap`
  kGateUp,  // n = 2 I, gate rows then up rows: out bf16 [rows][I]
  kQkv,     // few rows without q or k norm: rotated, to q and the KV pool
  kChosen,  // of experts by Stream: out bf16 [n], the sum of all rows, weighted, in their order
};

struct QkvOutput {
  StepRows rows;
  int32_t q_heads = 0, kv_heads = 0, head_dim = 0;
  Rope rope;
  KvView kv;
  __nv_bfloat16* q = nullptr;
};

// Rows grouped by expert, made by GroupByExpert: tile i holds tile_rows[i] of the sorted entries
// from tile_first[i] on, all of expert tile_expert[i] (-1: no tile).
struct ExpertTiles {
  const int32_t* entry = nullptr;  // [rows] result row of each sorted entry
  const int32_t* tile_expert = nullptr;
  const int32_t* tile_first = nullptr;
  const int32_t* tile_rows = nullptr;
  int32_t most = 0;  // tiles
  int32_t rows = 0;  // of a tile, at most
};

// One more expert, of the shape and format of the others and without a bias: of every `every`
// result rows the last is its.
struct SharedExpert {
  const void* w = nullptr;  // [n][k]
  const void* scales = nullptr;
  const void* zeros = nullptr;
  int32_t every = 0;  // 0: there is none
};

struct MatmulArgs {
  const __nv_bfloat16* x = nullptr;  // [rows][k]
  bool halves = false;               // they are f16, kHalfRows times as large: for QuantBatch
  const int32_t* x_row = nullptr;    // [rows] or null: which row of x
  int32_t x_divide = 1;              // else result row r reads x row r / x_divide
  int32_t rows = 0;
  const float* norm = nullptr;  // [k]: x is normed on the way
  float eps = 0;
  const void* w = nullptr;  // [n][k], of experts [E][n][k]
  DType dtype = DType::kBF16;
  int64_t n = 0, k = 0, batch = 1;
  const void* scales = nullptr;  // as Matrix has them
  const void* zeros = nullptr;
  int32_t group = 0;
  int32_t group_shift = 0;          // of a group that is a power of two
  const int32_t* expert = nullptr;  // [rows] or null; none for a row of the shared expert
  SharedExpert shared;              // for Stream
  // The kernel in front is a product of the same experts by Stream: they may be read before it
  // ends.
  bool experts_known = false;
  const float* weights = nullptr;  // of kChosen: [rows]; the shared expert's is 1
  ExpertTiles tiles;               // for Tiled with experts
  const float* bias = nullptr;     // [n], of experts [E][n], or null
  Output output = Output::kBf16;
  bool accumulate = false;
  float softcap = 0;
  Activation activation = Activation::kSilu;
  void* out = nullptr;
  QkvOutput qkv;
  Scratch workspace;  // for what a variant adds up or hands on; less, or none: slower
};

// What f16 rows of x are multiplied by. An element of a normed row is at most the root of its width
// times the norm's weight: up to thousands of that have room.
constexpr float kHalfRows = 0x1p-5f;

constexpr int kBatchRows = 128;
constexpr int kTileRows = 128, kSmallTileRows = 64;

void SetWeights(MatmulArgs& a, const Matrix& w);
// Refuses a matrix that ops.h does not describe.
OpError CheckWeights(const Matrix& w);
inline bool IsPlain(DType type) { return type <= DType::kF16; }

// Whether the rows of x are normed by the product itself, and whether rows go to q and the KV
// pool straight from it.
bool TakesNorm(const MatmulArgs& a, const LaunchContext& context);
bool TakesQkv(const MatmulArgs& a, const LaunchContext& context);
// Whether rows that are normed in front of it had better be f16.
bool TakesHalves(const MatmulArgs& a, const LaunchContext& context);
// Whether its rows, or each expert's, go through Stream; and whether it had better sum up the
// experts' rows, which are one row's, itself.
bool Streams(const MatmulArgs& a, const LaunchContext& context);
bool SumsChosen(const MatmulArgs& a, const LaunchContext& context);

inline constexpr OpError kNoKernel = {"no CUDA kernel below compute capability 8.0"};

OpError Matmul(const MatmulArgs& a, const LaunchContext& context);

// The variants.
OpError StreamBf16Matmul(const MatmulArgs& a, const LaunchContext& context);
OpError StreamFp8Matmul(const MatmulArgs& a, const LaunchContext& context);
OpError StreamInt4Matmul(const MatmulArgs& a, const LaunchContext& context);
OpError StreamInt4SmallMatmul(const MatmulArgs& a, const LaunchContext& context);
OpError StreamMxfp4Matmul(const MatmulArgs& a, const LaunchContext& context);
OpError QuantBatchFp8Matmul(const MatmulArgs& a, const LaunchContext& context);
OpError QuantBatchInt4Matmul(const MatmulArgs& a, const LaunchContext& context);
OpError QuantBatchInt4SmallMatmul(const MatmulArgs& a, const LaunchContext& context);
OpError QuantBatchMxfp4Matmul(const MatmulArgs& a, const LaunchContext& context);
OpError TiledFp8Matmul(const MatmulArgs& a, const LaunchContext& context);
OpError TiledInt4Matmul(const MatmulArgs& a, const LaunchContext& context);
OpError TiledInt4SmallMatmul(const MatmulArgs& a, const LaunchContext& context);
OpError TiledMxfp4Matmul(const MatmulArgs& a, const LaunchContext& context);
OpError BatchMatmul(const MatmulArgs& a, const LaunchContext& context);
int64_t BatchWorkspaceBytes(int32_t rows, int multiprocessors);  // the most that it can use
OpError TiledMatmul(const MatmulArgs& a, const LaunchContext& context);
OpError GenericMatmul(const MatmulArgs& a, const LaunchContext& context);

}  // namespace switchyard::kernels::cuda
