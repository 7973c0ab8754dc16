#include "supervisor/pins.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/human.h"
#include "supervisor/arithmetic.h"

namespace switchyard::supervisor {

absl::Status CheckPins(const Device& device, const std::vector<PinnedModel>& pinned,
                       const PinnedModel& more) {
  uint64_t together = more.needs.Smallest().total();
  std::vector<std::string> others;
  for (const PinnedModel& other : pinned) {
    together += other.needs.Smallest().total();
    others.push_back(absl::StrCat(other.name, " ", SmallestLeaseText(other.needs)));
  }
  if (together <= Usable(device)) return absl::OkStatus();
  // A model that does not fit alone is none that could be pinned: there are others.
  return absl::FailedPreconditionError(absl::StrCat(
      more.name, " cannot be pinned: it needs ", SmallestLeaseText(more.needs),
      " beside what is pinned already, ", absl::StrJoin(others, ", "), ", together ",
      HumanBytes(together), ", but ", UsableText(device), ". Unpin another one first"));
}

}  // namespace switchyard::supervisor
