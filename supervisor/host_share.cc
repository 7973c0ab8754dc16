#include "supervisor/host_share.h"

#include <algorithm>

namespace switchyard::supervisor {
namespace {

// A ring is whole blocks of the image's checksum (worker/model/image.h): some of them on their way
// from the disk, some on their way to the device.
constexpr uint64_t kBlock = uint64_t{1} << 20;
constexpr uint64_t kLeastRing = 4 * kBlock;
// More than the reads and copies that are worth having on their way at once.
constexpr uint64_t kMostRing = 128 * kBlock;
// Of the budget: there may be more than one such model, and paused sequences.
constexpr uint64_t kShare = 4;

}  // namespace

std::optional<HostShare> HostShareOf(uint64_t image_bytes, uint64_t budget) {
  if (image_bytes <= budget) return HostShare{image_bytes, false};
  const uint64_t ring = std::min(kMostRing, budget / kShare / kBlock * kBlock);
  if (ring < kLeastRing) return std::nullopt;
  return HostShare{ring, true};
}

uint64_t LeastHostBudget() { return kLeastRing * kShare; }

}  // namespace switchyard::supervisor
