#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "switchyard/v1/model.pb.h"

namespace switchyard::supervisor {

// What the TCP listener shows and asks for. All of it or nothing.
struct Credentials {
  std::string certificate;  // PEM
  std::string key;          // PEM
  std::string token;
  bool given() const { return !token.empty(); }
};

// Reads the files that the configuration names, if it does. INVALID_ARGUMENT: some of them only, or
// what they hold is not that.
absl::StatusOr<Credentials> ReadCredentials(const switchyard::v1::SupervisorConfig& config);

}  // namespace switchyard::supervisor
