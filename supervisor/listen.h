#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "common/unique_fd.h"

namespace switchyard::supervisor {

struct HostPort {
  std::string host;  // as written, without brackets
  uint16_t port = 0;
};

// "127.0.0.1:7411", "localhost:0", "[::1]:7411".
absl::StatusOr<HostPort> ParseHostPort(const std::string& text);

// "HOST:PORT", with brackets around an IPv6 address.
std::string FormatHostPort(const HostPort& address);

// INVALID_ARGUMENT unless it is a loopback address: wider ones need TLS and a token.
absl::Status CheckLoopback(const HostPort& address);

// Listens on a loopback address; anything wider is refused. Sets the port that was given for port
// 0.
absl::StatusOr<UniqueFd> ListenTcp(HostPort* address);

// Listens on a Unix socket with mode 0660 and replaces one that a dead supervisor left: call it
// with the state directory's lock held.
absl::StatusOr<UniqueFd> ListenUnix(const std::string& path);

}  // namespace switchyard::supervisor
