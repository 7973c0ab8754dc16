#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "absl/status/statusor.h"

namespace switchyard {

// Parses untrusted JSON without exceptions: depth at most 128, size at most `max_bytes`, a
// duplicate key in one object is an error. `name` opens every message.
absl::StatusOr<nlohmann::json> ParseJson(const std::string& text, const std::string& name,
                                         uint64_t max_bytes = uint64_t{1} << 30);

// Reads and parses a file. NOT_FOUND if there is none.
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path,
                                            uint64_t max_bytes = uint64_t{1} << 30);

// Reads a whole file of at most `max_bytes`.
absl::StatusOr<std::string> ReadFile(const std::string& path, uint64_t max_bytes);

}  // namespace switchyard
