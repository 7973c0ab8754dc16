#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/host_port.h"
#include "common/unique_fd.h"

namespace switchyard::supervisor {

// INVALID_ARGUMENT if it is no IP address, or one beyond loopback and not `secured` by TLS and a
// token.
absl::Status CheckListen(const HostPort& address, bool secured);

// Listens on such an address. Sets the port that was given for port 0.
absl::StatusOr<UniqueFd> ListenTcp(HostPort* address, bool secured = false);

// Listens on a Unix socket with mode 0660 and replaces one that a dead supervisor left: call it
// with the state directory's lock held.
absl::StatusOr<UniqueFd> ListenUnix(const std::string& path);

}  // namespace switchyard::supervisor
