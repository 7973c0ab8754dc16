#pragma once

// Room in the directory of the image cache, to which several workers write at once. What is being
// written counts as large as it will be, and stays; images go, longest unused first.

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "common/unique_fd.h"

namespace switchyard::worker {

constexpr char kImageSuffix[] = ".image";
constexpr char kPartialSuffix[] = ".partial";

// Whoever has it is alone in counting what is there and taking room. Where the file system has no
// locks, two may take the same room: who looks again when it is done finds that.
UniqueFd LockImageCache(const std::string& dir);

// Removes images, but not `kept`, until all that stays beside it and `bytes` more fit `max_bytes`,
// or none is left; and what dead writers have left. How much stays beside `kept`.
uint64_t MakeImageRoom(const std::string& dir, const std::string& kept, uint64_t bytes,
                       uint64_t max_bytes);

// Makes a new file `bytes` large and its own: it is being written for as long as this descriptor
// is open, whoever dies. RESOURCE_EXHAUSTED if the disk has no room for it.
absl::Status TakeImageRoom(int fd, uint64_t bytes);

}  // namespace switchyard::worker
