#include "supervisor/pins.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/human.h"
#include "supervisor/arithmetic.h"

namespace switchyard::supervisor {
namespace {

uint64_t Together(const std::vector<PinnedModel>& pinned) {
  uint64_t together = 0;
  for (const PinnedModel& each : pinned) together += each.needs.Smallest().total();
  return together;
}

std::string Listed(const std::vector<PinnedModel>& pinned) {
  return absl::StrJoin(pinned, ", ", [](std::string* out, const PinnedModel& each) {
    absl::StrAppend(out, each.name, " ", SmallestLeaseText(each.needs));
  });
}

}  // namespace

absl::Status CheckPins(const Device& device, const std::vector<PinnedModel>& pinned,
                       const PinnedModel& more) {
  const uint64_t together = Together(pinned) + more.needs.Smallest().total();
  if (together <= Usable(device)) return absl::OkStatus();
  // A model that does not fit alone is none that could be pinned: there are others.
  return absl::FailedPreconditionError(absl::StrCat(
      more.name, " cannot be pinned: it needs ", SmallestLeaseText(more.needs),
      " beside what is pinned already, ", Listed(pinned), ", together ", HumanBytes(together),
      ", but ", UsableText(device), ". Unpin another one first"));
}

absl::Status CheckKeepsPins(const Device& device, const std::vector<PinnedModel>& pinned) {
  const uint64_t together = Together(pinned);
  if (together <= Usable(device)) return absl::OkStatus();
  const bool one = pinned.size() == 1;
  return absl::FailedPreconditionError(absl::StrCat(
      device.name, " cannot be made smaller than what is pinned on it needs: ", Listed(pinned),
      one ? "" : absl::StrCat(", together ", HumanBytes(together)), ", but ", UsableText(device),
      ". Unpin ", one ? "it" : "one", " first"));
}

}  // namespace switchyard::supervisor
