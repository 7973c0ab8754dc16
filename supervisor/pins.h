#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "supervisor/bytes.h"
#include "supervisor/catalog.h"
#include "supervisor/ports.h"

namespace switchyard::supervisor {

struct PinnedModel {
  std::string name;
  Needs needs;
};

// Whether `more` can be kept on `device` beside those that are pinned there, each with the smallest
// lease that it runs with. FAILED_PRECONDITION shows the arithmetic. What strangers use now is left
// out: it comes and goes.
absl::Status CheckPins(const Device& device, const std::vector<PinnedModel>& pinned,
                       const PinnedModel& more);

// Whether `device`, being made smaller, still holds those that are pinned there.
// FAILED_PRECONDITION as above.
absl::Status CheckKeepsPins(const Device& device, const std::vector<PinnedModel>& pinned);

// The entries that their files pin and that have no room beside those pinned before them, in the
// order of the files, get that as their problem.
void FindPinsWithoutRoom(const std::vector<Device>& devices, std::vector<ModelEntry>& catalog);

}  // namespace switchyard::supervisor
