#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard::cli {

// The number that all of `text` is, in decimal: INVALID_ARGUMENT if it is empty, has anything else
// about it, or is beyond T (which is int32_t, uint32_t, uint64_t or float; not infinite, not NaN).
template <typename T>
absl::StatusOr<T> ParseNumber(const std::string& text);

// "1,2,3": token ids. None may be missing.
absl::StatusOr<std::vector<int32_t>> ParseIds(const std::string& text);

}  // namespace switchyard::cli
