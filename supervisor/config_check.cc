#include "supervisor/config_check.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/available_memory.h"
#include "common/human.h"
#include "common/status_macros.h"

namespace switchyard::supervisor {

absl::StatusOr<Budget> ConfiguredBudget(const v1::SupervisorConfig& config) {
  std::optional<uint64_t> reserve;
  if (config.has_reserve_bytes()) reserve = config.reserve_bytes();
  ASSIGN_OR_RETURN(const Budget budget,
                   FindBudget({config.devices().begin(), config.devices().end()},
                              config.host_memory(), reserve));
  for (const Device& device : budget.devices) {
    if (device.reserve_bytes <= device.capacity_bytes) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("device ", device.name, ": a reserve of ",
                     HumanBytes(device.reserve_bytes, device.capacity_bytes),
                     " (reserve_bytes) is more than its capacity of ",
                     HumanBytes(device.capacity_bytes, device.reserve_bytes)));
  }
  return budget;
}

absl::Status CheckMemory(const Budget& budget, uint64_t memory_bytes) {
  const auto has = [&](uint64_t beside) {
    return absl::StrCat(" is more than the ", HumanBytes(memory_bytes, beside),
                        " of memory that this machine has");
  };
  uint64_t cpu = 0;
  for (const Device& device : budget.devices) {
    if (device.name == "cpu") cpu = device.capacity_bytes;
  }
  if (cpu > memory_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("device cpu: ", HumanBytes(cpu, memory_bytes),
                                                   has(cpu),
                                                   "; give it less, as --device cpu=SIZE"));
  }
  if (budget.host_bytes > memory_bytes - cpu) {
    return absl::InvalidArgumentError(
        absl::StrCat(HumanBytes(budget.host_bytes, memory_bytes), " (host_memory)",
                     cpu > 0 ? absl::StrCat(" beside the ", HumanBytes(cpu), " of cpu") : "",
                     has(budget.host_bytes), "; give less, as --host-memory SIZE",
                     cpu > 0 ? " and --device cpu=SIZE" : ""));
  }
  return absl::OkStatus();
}

absl::Status CheckMemory(const Budget& budget) {
  ASSIGN_OR_RETURN(const uint64_t memory, TotalMemory());
  return CheckMemory(budget, memory);
}

absl::Status CheckDefaultModel(const std::string& default_model,
                               const std::vector<ModelEntry>& catalog) {
  if (default_model.empty()) return absl::OkStatus();
  std::vector<std::string> names;
  for (const ModelEntry& entry : catalog) names.push_back(entry.model.name());
  if (std::find(names.begin(), names.end(), default_model) != names.end()) return absl::OkStatus();
  return absl::NotFoundError(absl::StrCat("default_model: there is no model named ",
                                          ShownName(default_model), ", but ",
                                          absl::StrJoin(names, ", ")));
}

}  // namespace switchyard::supervisor
