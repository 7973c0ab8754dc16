#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "supervisor/catalog.h"
#include "supervisor/devices.h"

namespace switchyard::supervisor {

// The budget that `config` asks for. INVALID_ARGUMENT if it asks for what cannot be: wrong usage.
absl::StatusOr<Budget> ConfiguredBudget(const v1::SupervisorConfig& config);

// Whether a machine with `memory_bytes` can have this budget: `cpu` and the host budget together
// are no larger than that. Asked at the start, by a reload and by `switchyard check` (unless that
// plans for another machine), so that none of them takes what another refuses.
absl::Status CheckMemory(const Budget& budget, uint64_t memory_bytes);
absl::Status CheckMemory(const Budget& budget);  // this machine

// Whether `default_model`, if there is one, is in the catalog.
absl::Status CheckDefaultModel(const std::string& default_model,
                               const std::vector<ModelEntry>& catalog);

}  // namespace switchyard::supervisor
