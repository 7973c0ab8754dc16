#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace switchyard::cli {

// INVALID_ARGUMENT unless `text` is well-formed UTF-8. `what` opens the message.
absl::Status CheckUtf8(const std::string& text, const char* what);

// The text itself, or all of standard input if it is "-". INVALID_ARGUMENT unless it is UTF-8,
// RESOURCE_EXHAUSTED if there is more of it than a request may have.
absl::StatusOr<std::string> TextOrInput(const std::string& text, const char* what);

}  // namespace switchyard::cli
