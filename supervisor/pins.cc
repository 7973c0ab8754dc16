#include "supervisor/pins.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/human.h"
#include "supervisor/arithmetic.h"

namespace switchyard::supervisor {

absl::Status CheckPins(const Device& device, const std::vector<PinnedModel>& pinned,
                       const PinnedModel& more) {
  const uint64_t usable =
      device.capacity_bytes - std::min(device.reserve_bytes, device.capacity_bytes);
  uint64_t together = more.needs.Smallest().total();
  std::vector<std::string> others;
  for (const PinnedModel& other : pinned) {
    together += other.needs.Smallest().total();
    others.push_back(absl::StrCat(other.name, " ", SmallestLeaseText(other.needs)));
  }
  if (together <= usable) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      more.name, " cannot be pinned: it needs ", SmallestLeaseText(more.needs),
      others.empty()
          ? std::string()
          : absl::StrCat(" beside what is pinned already, ", absl::StrJoin(others, ", ")),
      ", together ", HumanBytes(together), ", but ", device.name, " has ",
      HumanBytes(device.capacity_bytes), ", of which ", HumanBytes(device.reserve_bytes),
      " are kept in reserve: ", HumanBytes(usable), " can be leased",
      others.empty() ? "" : ". Unpin another one first"));
}

}  // namespace switchyard::supervisor
