#pragma once

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "worker/io/checkpoint.h"
#include "worker/model/image.h"

namespace switchyard::worker {

// Fills a file of the image cache from the checkpoint, without the memory that the whole image
// takes: what is complete is written back and let go of on the way. The file is open for reading
// and writing, and empty, or zeros. RESOURCE_EXHAUSTED if the disk has no room. `progress` and
// `report` as of FillImage.
absl::Status BuildImageFile(int fd, const ImageLayout& layout, const Checkpoint& checkpoint,
                            const std::function<bool(uint64_t)>& progress, FillReport* report);

}  // namespace switchyard::worker
