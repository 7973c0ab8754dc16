#include "cli/names.h"

#include <sys/un.h>

#include <algorithm>
#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "cli/printable.h"
#include "common/model_name.h"

namespace switchyard::cli {
namespace {

constexpr std::string_view kUnix = "unix:";
constexpr size_t kLongestPath = sizeof(sockaddr_un::sun_path) - 1;

bool IsHost(std::string_view host) {
  const bool brackets = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (brackets) host = host.substr(1, host.size() - 2);
  return !host.empty() && std::all_of(host.begin(), host.end(), [&](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == '_' ||
           (brackets && (c == ':' || c == '%'));
  });
}

bool IsPort(std::string_view text) {
  int port = 0;
  const bool digits = !text.empty() && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
  return digits && absl::SimpleAtoi(std::string(text), &port) && port >= 1 && port <= 65535;
}

}  // namespace

absl::Status CheckModelName(const std::string& name) {
  if (name.empty()) return absl::InvalidArgumentError("a model's name is empty");
  if (ValidModelName(name)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("no model is called \"", Printable(name),
                                                 "\": a name matches ", kModelNamePattern));
}

absl::Status CheckAddress(const std::string& address) {
  const std::string_view text = address;
  if (text.substr(0, kUnix.size()) == kUnix) {
    const size_t length = text.size() - kUnix.size();
    if (length > 0 && length <= kLongestPath) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("\"", Printable(address), "\": the path has ",
                                                   length, " bytes, 1 to ", kLongestPath, " fit"));
  }
  const size_t colon = text.rfind(':');
  if (colon != std::string::npos && IsHost(text.substr(0, colon)) &&
      IsPort(text.substr(colon + 1))) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", Printable(address),
      "\" is not an address: HOST:PORT is, with a port from 1 to 65535, or unix:PATH"));
}

}  // namespace switchyard::cli
