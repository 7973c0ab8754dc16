#pragma once

// Reads config.json by the table of families (family_table.h). What a config leaves out takes the
// defaults of the class that wrote it, and what it asks for and we do not have is refused by name.

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/statusor.h"
#include "worker/io/generation_config.h"
#include "worker/model/architecture.h"

namespace switchyard::worker {

// INVALID_ARGUMENT: malformed or contradictory; UNIMPLEMENTED: asks for what we do not have, or is
// of a family that is not in the table.
absl::StatusOr<Architecture> ReadArchitecture(const nlohmann::json& config);

// Special ids that neither generation_config.json nor config.json gives: those of the class.
GenerationConfig WithClassDefaults(GenerationConfig generation, const nlohmann::json& config);

// The `model_type`s of the table.
std::vector<std::string> KnownModelTypes();

}  // namespace switchyard::worker
