#pragma once

// An image that follows its checkpoint element by element (its layout took no work), read piece by
// piece. A piece costs what it is made of: reads and memory do not grow with the tensors.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "worker/io/checkpoint.h"
#include "worker/model/image.h"
#include "worker/model/image_blocks.h"

namespace switchyard::worker {

// Fills `out` with the bytes of the image from `begin` on: what FillImage would put there.
absl::Status FillWindow(const ImageLayout& layout, const Checkpoint& checkpoint, uint64_t begin,
                        std::span<std::byte> out);

// Its blocks. Both stay until the blocks and their readers are gone.
std::unique_ptr<const ImageBlocks> CheckpointBlocks(const ImageLayout& layout,
                                                    const Checkpoint& checkpoint);

}  // namespace switchyard::worker
