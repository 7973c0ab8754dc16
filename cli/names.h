#pragma once

#include <string>

#include "absl/status/status.h"

namespace switchyard::cli {

// What the command line may name, so that nothing else is asked for: a message without an answer
// to it, or one that gRPC complains of in its own words, helps nobody.

// common/model_name.h
absl::Status CheckModelName(const std::string& name);

// HOST:PORT (an IPv6 host in brackets), or unix:PATH.
absl::Status CheckAddress(const std::string& address);
bool IsUnixAddress(const std::string& address);

}  // namespace switchyard::cli
