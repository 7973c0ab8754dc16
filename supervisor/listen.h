#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "common/host_port.h"
#include "common/unique_fd.h"

namespace switchyard::supervisor {

// INVALID_ARGUMENT unless it is a loopback address: wider ones need TLS and a token.
absl::Status CheckLoopback(const HostPort& address);

// Listens on a loopback address; anything wider is refused. Sets the port that was given for port
// 0.
absl::StatusOr<UniqueFd> ListenTcp(HostPort* address);

// Listens on a Unix socket with mode 0660 and replaces one that a dead supervisor left: call it
// with the state directory's lock held.
absl::StatusOr<UniqueFd> ListenUnix(const std::string& path);

}  // namespace switchyard::supervisor
