#pragma once

// The image: a model's weights in device-ready layout (fused, in execution order), one contiguous
// range of bytes cut into chunks. The same bytes lie in the master and, at the same offsets, in the
// arena.
//
// Order: embedding; for each layer what its forward pass reads, in that order; final norm; head (if
// not tied). Layer i may run when every byte before LayerEnd(i) is resident, so residency is a
// prefix.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/io/checkpoint.h"
#include "worker/model/architecture.h"
#include "worker/model/quantization_config.h"
#include "worker/model/quantizer.h"

namespace switchyard::worker {

// What a tensor of the image is to the forward pass.
enum class Role : uint8_t {
  kEmbedding,          // [V][H]
  kAttentionNorm,      // f32 [H]
  kQkv,                // [(Hq + 2 Hkv) D][H]
  kQkvBias,            // f32
  kQNorm,              // f32 [D]
  kKNorm,              // f32 [D]
  kSinks,              // f32 [Hq]
  kO,                  // [H][Hq D]
  kOBias,              // f32 [H]
  kPostAttentionNorm,  // f32 [H]
  kMlpNorm,            // f32 [H]
  kGateUp,             // [2 I][H]
  kGateUpBias,         // f32 [2 I]
  kDown,               // [H][I]
  kDownBias,           // f32 [H]
  kRouter,             // [E][H]
  kRouterBias,         // f32 [E]
  kRouterCorrection,   // f32 [E]
  kExpertsGateUp,      // [E][2 I][H]
  kExpertsGateUpBias,  // f32 [E][2 I]
  kExpertsDown,        // [E][H][I]
  kExpertsDownBias,    // f32 [E][H]
  kSharedGateUp,       // [2 Is][H]
  kSharedDown,         // [H][Is]
  kPostMlpNorm,        // f32 [H]
  kFinalNorm,          // f32 [H]
  kHead,               // [V][H]
};
const char* RoleName(Role role);

// How a piece of the checkpoint becomes a piece of the image.
enum class Transform : uint8_t {
  kCopy,                   // same type, same order
  kConvert,                // to f32
  kConvertPlusOne,         // to f32, 1 + w (Gemma's norms)
  kTranspose,              // [in][out] to [out][in] per expert (gpt-oss)
  kTransposeDeinterleave,  // the same, and rows 0,2,4.. before rows 1,3,5.. (gpt-oss gate and up)
  kDeinterleave,           // to f32, elements 0,2,4.. before 1,3,5.. of each row (gpt-oss biases)
  // fp8.
  kCopyF8,          // as they are; none may be "not a number"
  kScalesToF32,     // one a row or a block
  kBroadcastToF32,  // one for all rows
  // Weights of formats of 4 bits (worker/io/packed_weights.h).
  kNibbles,              // eight a word in order, to the image's order
  kNibblesDeinterleave,  // the same, and rows 0,2,4.. before 1,3,5.. (MXFP4 gate and up)
  kAwqWeights,           // [k][n/8]
  kGptqWeights,          // [k/8][n]
  // Their scales.
  kScalesToF16,            // [n][groups]
  kTransposedScalesToF16,  // [groups][n]
  kScaleExponents,         // e8m0
  kScaleExponentsDeinterleave,
  // Their zero points.
  kAwqZeros,          // [groups][n/8]
  kGptqZeros,         // [groups][n/8]
  kGptqZerosPlusOne,  // the same, and one less than they mean
  kPackedZeros,       // [n/8][groups]
};

struct ImageSource {
  std::string tensor;  // name in the checkpoint
  Transform transform = Transform::kCopy;
  uint64_t offset = 0;  // into the image tensor, bytes
  uint64_t bytes = 0;   // that it fills
};

// A quantized matrix is three tensors of one role: its packed weights, scales and zero points.
enum class Piece : uint8_t { kData, kScales, kZeros };

struct ImageTensor {
  Role role;
  Piece piece = Piece::kData;
  int32_t layer = -1;  // -1: none
  // Of the numbers; where scales or zero points are bytes, of their matrix.
  kernels::DType dtype = kernels::DType::kF32;
  int32_t group = 0;                // of a quantized matrix (kernels::Matrix)
  int64_t batch = 1, n = 1, k = 1;  // vectors: n = 1, k = width; scales: their own shape
  // The sources are plain matrices, and filling quantizes them: their scales go to the next tensor,
  // which has no sources.
  bool quantize = false;
  uint64_t offset = 0;  // into the image, a multiple of 256
  uint64_t bytes = 0;
  std::vector<ImageSource> sources;
};

struct ImageLayout {
  std::vector<ImageTensor> tensors;  // by offset
  std::vector<uint64_t> layer_end;   // [layers] bytes of the prefix that layer i needs
  uint64_t bytes = 0;                // whole image
  uint64_t chunk_bytes = 0;
  uint32_t chunks = 0;
  // Some source is not elementwise (image_elements.h): worth keeping in the cache, and not to be
  // streamed from the checkpoint.
  bool took_work = false;
  // Checkpoint identity (names, sizes, times and inodes of its files, config), layout.
  std::string key;
  std::vector<std::string> notes;  // "428 vision tensors skipped"
};

// What is done to a bf16, f16 or f32 checkpoint's projections and experts on the way.
enum class Quantize : uint8_t {
  kAsStored,
  kFp8,   // e4m3, a scale of each row
  kInt4,  // groups of 128, or 64 or 32 where those divide a row; else as stored
};

// Where every tensor of `arch` comes from and goes to. Errors name the tensor: missing, wrong
// shape, wrong type, left over (a tensor that no role uses and no rule skips).
absl::StatusOr<ImageLayout> PlanImage(const Architecture& arch, const Checkpoint& checkpoint,
                                      Quantize quantize = Quantize::kAsStored);

// The layout that a checkpoint would get, from config.json alone; matrices that it does not keep in
// a quantized format are of type `dtype`. The tensors have no sources, and there is no key.
absl::StatusOr<ImageLayout> PlanImageWithoutWeights(const Architecture& arch, kernels::DType dtype,
                                                    const QuantizationConfig& config = {},
                                                    Quantize quantize = Quantize::kAsStored);

// Whether some matrix besides the experts' is fp8 or int4.
bool HasQuantizedMatrix(const ImageLayout& image);
// Whether some such matrix is fp8 with a scale per row.
bool HasFp8RowMatrix(const ImageLayout& image);

// What quantizing while filling has cost.
struct FillReport {
  QuantizationError error;  // over all weights that were quantized
  double worst = 0;         // the relative error of the worst matrix
  std::string worst_name;   // "layer 3 down"; empty: nothing was quantized
};

// Fills `image` (layout.bytes) from the checkpoint, in order; `progress` is called with the bytes
// of the prefix that is complete, and ends the work with CANCELLED when it returns false.
absl::Status FillImage(const ImageLayout& layout, const Checkpoint& checkpoint,
                       std::span<std::byte> image, const std::function<bool(uint64_t)>& progress,
                       FillReport* report = nullptr);

// A fast checksum (several GB/s a thread) against damage, not against malice. It is made of the
// digests of blocks, which whoever reads an image block by block can take while they are in the
// cache.
constexpr uint64_t kChecksumBlock = uint64_t{1} << 20;
uint64_t ImageChecksum(std::span<const std::byte> image);
uint64_t BlockDigest(std::span<const std::byte> block, uint64_t index);
std::vector<uint64_t> BlockDigests(std::span<const std::byte> image);
uint64_t ImageChecksum(std::span<const uint64_t> digests, uint64_t image_bytes);

}  // namespace switchyard::worker
