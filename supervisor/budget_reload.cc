#include "supervisor/budget_reload.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/status_macros.h"
#include "supervisor/config_check.h"

namespace switchyard::supervisor {
namespace {

using Texts = google::protobuf::RepeatedPtrField<std::string>;

bool SameDevices(const std::vector<Device>& a, const std::vector<Device>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Device& x, const Device& y) { return x.name == y.name; });
}

bool SameTexts(const Texts& a, const Texts& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

// Whether they ask for the same memory: then it is not asked again whether there is as much.
bool SameMemory(const v1::SupervisorConfig& a, const v1::SupervisorConfig& b) {
  return SameTexts(a.devices(), b.devices()) && a.host_memory() == b.host_memory() &&
         a.has_reserve_bytes() == b.has_reserve_bytes() && a.reserve_bytes() == b.reserve_bytes();
}

std::string TextOf(const Texts& texts, size_t device) {
  const int i = static_cast<int>(device);
  return i < texts.size() ? texts[i] : "";
}

absl::StatusOr<Budget> PossibleBudget(const v1::SupervisorConfig& config) {
  ASSIGN_OR_RETURN(Budget budget, ConfiguredBudget(config));
  RETURN_IF_ERROR(CheckMemory(budget));
  return budget;
}

// Of what would be in force: the host budget is that of the start.
absl::Status CheckBesideHostBudget(const Budget& budget) {
  const absl::Status room = CheckMemory(budget);
  if (room.ok()) return room;
  return absl::Status(room.code(),
                      absl::StrCat("until a restart host_memory is that of the last start, and ",
                                   room.message(), "; a restart takes the file as it is"));
}

}  // namespace

absl::StatusOr<InForce> ReloadBudget(const Configuration& read, const InForce& now) {
  const v1::SupervisorConfig& old_config = now.told.config;
  if (SameMemory(read.config, old_config)) return now;
  RETURN_IF_ERROR(PossibleBudget(read.config).status());
  if (SameTexts(read.config.devices(), old_config.devices())) return now;

  InForce next = now;
  *next.told.config.mutable_devices() = read.config.devices();
  ASSIGN_OR_RETURN(const Budget found, ConfiguredBudget(next.told.config));
  if (!SameDevices(found.devices, now.budget.devices)) {
    const auto name = [](std::string* out, const Device& device) { out->append(device.name); };
    return absl::InvalidArgumentError(
        absl::StrCat("devices may change their sizes while models are served, but must be ",
                     absl::StrJoin(now.budget.devices, ", ", name), " as at the start"));
  }
  // A size that is not told is found anew each time: only what is told differently has changed.
  for (size_t i = 0; i < found.devices.size(); ++i) {
    if (TextOf(read.config.devices(), i) == TextOf(old_config.devices(), i)) continue;
    next.budget.devices[i] = found.devices[i];
  }
  RETURN_IF_ERROR(CheckBesideHostBudget(next.budget));
  return next;
}

}  // namespace switchyard::supervisor
