#include "supervisor/budget_reload.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status_macros.h"
#include "supervisor/catalog.h"
#include "supervisor/config_check.h"

namespace switchyard::supervisor {
namespace {

bool SameDevices(const std::vector<Device>& a, const std::vector<Device>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Device& x, const Device& y) { return x.name == y.name; });
}

}  // namespace

absl::StatusOr<BudgetInForce> ReloadBudget(const std::string& file, const BudgetInForce& now) {
  ASSIGN_OR_RETURN(const v1::SupervisorConfig read, LoadConfig(file));
  BudgetInForce next = now;
  *next.config.mutable_devices() = read.devices();
  const auto& old_texts = now.config.devices();
  const auto& texts = next.config.devices();
  if (std::equal(texts.begin(), texts.end(), old_texts.begin(), old_texts.end())) return now;

  ASSIGN_OR_RETURN(const Budget found, ConfiguredBudget(next.config));
  RETURN_IF_ERROR(CheckMemory(found));
  if (!SameDevices(found.devices, now.budget.devices)) {
    const auto name = [](std::string* out, const Device& device) { out->append(device.name); };
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": devices may change their sizes while models are served, but must be ",
                     absl::StrJoin(now.budget.devices, ", ", name), " as at the start"));
  }
  // A size that is not told is found anew each time: only what is told differently has changed.
  for (int i = 0; i < texts.size(); ++i) {
    if (i < old_texts.size() && texts[i] == old_texts[i]) continue;
    next.budget.devices[static_cast<size_t>(i)] = found.devices[static_cast<size_t>(i)];
  }
  return next;
}

}  // namespace switchyard::supervisor
