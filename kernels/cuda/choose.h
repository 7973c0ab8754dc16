#pragma once

// Which kernel runs: from compute capability, weight type, shape and rows to a variant, as plain
// data and without a GPU. Everything above 8.0 finds a kernel; what is below is refused by name.

#include <cstdint>

#include "kernels/ops.h"

namespace switchyard::kernels::cuda {

// Compute capabilities as major * 10 + minor.
inline constexpr int kLowestCapability = 80;
inline constexpr int kFp8Capability = 89;  // multiplies fp8 numbers

// Bytes of shared memory that a block may have.
int64_t SharedLimit(int capability);
// Whether kernels may begin before the one in front has ended.
bool HasProgrammaticLaunch(int capability);

enum class ProductKernel : uint8_t {
  kStream,      // stream_matmul.cuh
  kBatch,       // batch_matmul.cu
  kQuantBatch,  // quant_batch.cuh
  kTile,        // tiled_matmul.cu
  kQuantTile,   // quant_tile.cuh
  kGeneric,     // matmul.cu
};

// Rows of a product with experts: none, an expert for each row, or grouped by expert.
enum class ExpertRows : uint8_t { kNone = 1, kEach = 2, kGrouped = 4 };

struct ProductShape {
  DType dtype = DType::kBF16;
  int32_t group = 0;
  int64_t n = 0, k = 0, batch = 1;
  int64_t rows = 0;
  ExpertRows experts = ExpertRows::kNone;
  bool qkv = false;     // rotated, to q and the KV pool
  bool aligned = true;  // weights and x start at multiples of 16 bytes
  bool norm = false;    // x is normed on the way
  bool picks = false;   // result rows are not one after the other those of x
  bool halves = false;  // x is f16
  // The bits of a result row may not depend on how many rows there are.
  bool invariant = false;
};

struct ProductVariant {
  ProductKernel kernel;
  const char* name;
  uint32_t types;              // a bit a DType
  int64_t multiple_k, most_k;  // of the width
  int64_t least_rows, most_rows;
  uint32_t experts;  // ExpertRows
  bool shifts;       // group sizes are powers of two, and indices have 32 bits
  bool norms;        // norms the rows of x by itself
  bool picks;        // reads other rows of x than its results'
  bool halves;       // takes f16 rows of x, too, and is faster by them
  int64_t qkv_rows;  // up to so many rows it rotates and stores q, k and v by itself
  int64_t shared, shared_a_column;
  // Whether a result's bits depend on its rows of w and x alone; then they are the same by all such
  // variants that take the weights.
  bool invariant;
  int lowest_capability;
};

// The first of the table that takes the shape; without `qkv` null only below the lowest capability.
const ProductVariant* ChooseProduct(int capability, const ProductShape& shape);
// As that, among those that norm x by themselves.
bool NormsItself(int capability, const ProductShape& shape);

// Whether moe_few.cu routes so many rows by a router of that type and width (where all is aligned),
// and what a block of it has of shared memory: some of the rows, normed, as bf16.
inline constexpr int32_t kRouteFewRows = 128, kRouteFewRowsOfBlock = 4;
bool RoutesFew(DType router, int64_t width, int64_t rows);
int64_t RouteFewShared(int64_t width, int64_t rows);

enum class AttentionKernel : uint8_t {
  kTile,       // attention_decode.cu for sequences of one row, attention_prefill.cu for longer ones
  kInvariant,  // attention_invariant.cu
  kGeneric,    // attention_generic.cu
};

struct AttentionVariant {
  AttentionKernel kernel;
  const char* name;
  int32_t least_head, most_head;
  bool invariant;  // a row's bits depend on its own keys alone
  int lowest_capability;
};

// Null below the lowest capability, and for heads of more than 1024.
const AttentionVariant* ChooseAttention(int capability, int32_t head_dim, bool invariant = false);

}  // namespace switchyard::kernels::cuda
