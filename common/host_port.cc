#include "common/host_port.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/printable.h"

namespace switchyard {
namespace {

bool IsHost(std::string_view host, bool brackets) {
  return !host.empty() && std::all_of(host.begin(), host.end(), [&](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == '_' ||
           (brackets && (c == ':' || c == '%'));
  });
}

bool ParsePort(std::string_view text, uint32_t* port) {
  const bool digits = !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
  return digits && absl::SimpleAtoi(std::string(text), port) && *port <= 65535;
}

}  // namespace

absl::StatusOr<HostPort> ParseHostPort(const std::string& text) {
  const size_t colon = text.rfind(':');
  uint32_t port = 0;
  if (colon != std::string::npos && ParsePort(std::string_view(text).substr(colon + 1), &port)) {
    std::string host = text.substr(0, colon);
    const bool brackets = host.size() > 2 && host.front() == '[' && host.back() == ']';
    if (brackets) host = host.substr(1, host.size() - 2);
    if (IsHost(host, brackets)) return HostPort{std::move(host), static_cast<uint16_t>(port)};
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", Printable(text), "\" is not an address: HOST:PORT is, with a port up to 65535"));
}

std::string FormatHostPort(const HostPort& address) {
  const bool v6 = address.host.find(':') != std::string::npos;
  return v6 ? absl::StrCat("[", address.host, "]:", address.port)
            : absl::StrCat(address.host, ":", address.port);
}

}  // namespace switchyard
