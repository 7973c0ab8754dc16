#pragma once

// Sources of which each element is made of one of the checkpoint's, so that any range can be filled
// by reading as much as it is made of, and no more: large images are streamed by such ranges.

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "worker/io/checkpoint.h"
#include "worker/model/image.h"

namespace switchyard::worker {

bool IsElementwise(Transform transform);

// Bytes of an element in the image.
uint64_t ElementBytes(const ImageTensor& tensor);

// Elements [begin, end) of such a source; `to`, aligned for them, is where `begin` goes. Takes no
// more memory than a tile of the checkpoint besides.
absl::Status FillElements(const Checkpoint& checkpoint, const ImageSource& source, uint64_t begin,
                          uint64_t end, std::byte* to);

// What is wrong with a tensor, and in which checkpoint.
absl::Status InCheckpoint(const Checkpoint& checkpoint, const absl::Status& status);

}  // namespace switchyard::worker
