#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"

namespace switchyard {

constexpr size_t kMostSecretBytes = 1 << 20;

// The content of a file that every user must not be able to read: FAILED_PRECONDITION if they can.
absl::StatusOr<std::string> ReadSecretFile(const std::string& path);

// The one line of such a file, without white space around it: 16 to 4,096 characters that an HTTP
// header can carry. INVALID_ARGUMENT, without showing it, if it is something else.
absl::StatusOr<std::string> ReadTokenFile(const std::string& path);

// Whether they are equal, in a time that depends on the length of `given` alone.
bool SameSecret(const std::string& given, const std::string& secret);

}  // namespace switchyard
