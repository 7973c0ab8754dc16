#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "supervisor/credentials.h"
#include "supervisor/listen.h"
#include "switchyard/v1/model.pb.h"

namespace switchyard::supervisor {

// What a supervisor is told, by the file of --config and by flags.
struct Configuration {
  // The file's values with the flags laid over them, and what is the default of sizes and address.
  switchyard::v1::SupervisorConfig config;
  HostPort listen;
  Credentials credentials;  // what its files hold
};

// Reads `file`, if it is not empty, and what it names, and lays `flags` over it, which holds what
// they say and nothing else. Refuses what no supervisor can start with, whatever its devices and
// models.
absl::StatusOr<Configuration> ReadConfiguration(const std::string& file,
                                                const switchyard::v1::SupervisorConfig& flags);

// What of `read` is not so in the configuration in force and waits for the next start: the names of
// its fields, also where the file that a field names holds something else. Never `devices`, of
// which a reload takes the sizes.
std::vector<std::string> WaitsForRestart(const Configuration& in_force, const Configuration& read);

}  // namespace switchyard::supervisor
