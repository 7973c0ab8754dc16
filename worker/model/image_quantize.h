#pragma once

// Fills quantized matrices from plain ones.

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "worker/io/checkpoint.h"
#include "worker/model/image.h"
#include "worker/model/quantizer.h"

namespace switchyard::worker {

// The work on one source is cut into rows; where the source is transposed, into experts.
struct QuantizeWork {
  uint64_t units = 1;
  uint64_t step = 1;
  uint64_t unit_bytes = 0;  // of the image's numbers
};
QuantizeWork QuantizeWorkOf(const ImageTensor& tensor, const ImageSource& source);

// Units [begin, end) of `source`. `scales` is the tensor behind `tensor`.
absl::StatusOr<QuantizationError> FillQuantized(const Checkpoint& checkpoint,
                                                const ImageTensor& tensor,
                                                const ImageTensor& scales,
                                                const ImageSource& source, uint64_t begin,
                                                uint64_t end, std::span<std::byte> image);

}  // namespace switchyard::worker
