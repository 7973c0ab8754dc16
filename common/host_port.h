#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace switchyard {

struct HostPort {
  std::string host;  // as written, without brackets
  uint16_t port = 0;
};

// "127.0.0.1:7411", "localhost:0", "[::1]:7411". INVALID_ARGUMENT: a host of other characters than
// names and addresses have, or a port that is not digits up to 65535.
absl::StatusOr<HostPort> ParseHostPort(const std::string& text);

// "HOST:PORT", with brackets around an IPv6 address.
std::string FormatHostPort(const HostPort& address);

}  // namespace switchyard
