#pragma once

// Fills pieces of quantized matrices from the tensors that a checkpoint keeps them in.

#include <cstdint>

#include "absl/status/status.h"
#include "worker/io/checkpoint.h"
#include "worker/model/image.h"

namespace switchyard::worker {

// True if the transform is one of those of formats of 4 bits.
bool IsPacked(Transform transform);

// How the work on one source is cut: into units of the source, so many a job.
struct PackedWork {
  uint64_t units = 1;
  uint64_t step = 1;
};
PackedWork PackedWorkOf(const ImageTensor& tensor, const ImageSource& source);
// Bytes at the front of the source's range that are complete when units [0, end) are done.
uint64_t PackedBytesDone(const ImageTensor& tensor, const ImageSource& source, uint64_t end);

// Units [begin, end). `to`: where the source's range of the image begins.
absl::Status FillPacked(const Checkpoint& checkpoint, const ImageTensor& tensor,
                        const ImageSource& source, uint64_t begin, uint64_t end, std::byte* to);

}  // namespace switchyard::worker
