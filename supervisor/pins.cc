#include "supervisor/pins.h"

#include <utility>

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

std::string Listed(const std::vector<PinnedModel>& pinned, uint64_t usable) {
  return absl::StrJoin(pinned, ", ", [=](std::string* out, const PinnedModel& each) {
    absl::StrAppend(out, each.name, " ", SmallestLeaseText(each.needs, usable));
  });
}

}  // namespace

absl::Status CheckPins(const Device& device, const std::vector<PinnedModel>& pinned,
                       const PinnedModel& more) {
  const uint64_t together = Together(pinned) + more.needs.Smallest().total();
  const uint64_t usable = Usable(device);
  if (together <= usable) return absl::OkStatus();
  // A model that does not fit alone is none that could be pinned: there are others.
  return absl::FailedPreconditionError(
      absl::StrCat(more.name, " cannot be pinned: it needs ", SmallestLeaseText(more.needs, usable),
                   " beside what is pinned already, ", Listed(pinned, usable), ", together ",
                   HumanBytes(together, usable), ", but ", UsableText(device, together),
                   ". Unpin another one first"));
}

absl::Status CheckKeepsPins(const Device& device, const std::vector<PinnedModel>& pinned) {
  const uint64_t together = Together(pinned);
  const uint64_t usable = Usable(device);
  if (together <= usable) return absl::OkStatus();
  const bool one = pinned.size() == 1;
  return absl::FailedPreconditionError(absl::StrCat(
      device.name, " cannot be made smaller than what is pinned on it needs: ",
      Listed(pinned, usable), one ? "" : absl::StrCat(", together ", HumanBytes(together, usable)),
      ", but ", UsableText(device, together), ". Unpin ", one ? "it" : "one", " first"));
}

void FindPinsWithoutRoom(const std::vector<Device>& devices, std::vector<ModelEntry>& catalog) {
  for (const Device& device : devices) {
    std::vector<PinnedModel> pinned;
    for (ModelEntry& entry : catalog) {
      const std::string& name = entry.model.device();
      const bool here = name == device.name || (name.empty() && &device == &devices.front());
      if (!here || !entry.model.pinned() || !entry.problem.ok()) continue;
      PinnedModel more{entry.model.name(), NeedsOf(entry.plan)};
      entry.problem = CheckPins(device, pinned, more);
      if (entry.problem.ok()) pinned.push_back(std::move(more));
    }
  }
}

}  // namespace switchyard::supervisor
