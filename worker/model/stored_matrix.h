#pragma once

// How one matrix of a checkpoint is stored: the tensors that are there decide, and what they say is
// held against config.json. Whatever does not fit is refused by name.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/io/checkpoint.h"
#include "worker/model/image.h"
#include "worker/model/image_slots.h"
#include "worker/model/quantization_config.h"

namespace switchyard::worker {

// A tensor of the checkpoint, and what becomes of it. No name: there is none.
struct PieceSource {
  std::string tensor;
  Transform transform = Transform::kCopy;
};

// [batch][n][k], as the image will have it.
struct StoredMatrix {
  WeightFormat format = WeightFormat::kPlain;
  kernels::DType dtype = kernels::DType::kBF16;
  int32_t group = 0;  // kernels::Matrix
  int64_t n = 0;      // rows, of all experts together
  PieceSource data, scales, zeros;
  std::vector<std::string> unused;  // tensors that belong to it and are not needed
};

// `part` of `slot`, in the checkpoint.
absl::StatusOr<StoredMatrix> FindStored(const Checkpoint& checkpoint,
                                        const QuantizationConfig& config, const ImageSlot& slot,
                                        const SlotPart& part);

// What config.json alone promises; plain matrices are of type `plain`.
absl::StatusOr<StoredMatrix> AssumeStored(const QuantizationConfig& config, const ImageSlot& slot,
                                          const SlotPart& part, kernels::DType plain);

// Projections and experts, which quantized formats are for: neither embedding, head nor router.
bool IsProjection(Role role);

// The tensor's type as a plain matrix; kF8E4M3 for that.
absl::StatusOr<kernels::DType> PlainType(const TensorInfo& info);

}  // namespace switchyard::worker
