#include "cli/names.h"

#include <sys/un.h>

#include <string_view>

#include "absl/strings/str_cat.h"
#include "common/host_port.h"
#include "common/model_name.h"
#include "common/printable.h"

namespace switchyard::cli {
namespace {

constexpr std::string_view kUnix = "unix:";
constexpr size_t kLongestPath = sizeof(sockaddr_un::sun_path) - 1;

}  // namespace

absl::Status CheckModelName(const std::string& name) {
  if (name.empty()) return absl::InvalidArgumentError("a model's name is empty");
  if (ValidModelName(name)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("no model is called \"", Printable(name),
                                                 "\": a name matches ", kModelNamePattern));
}

bool IsUnixAddress(const std::string& address) {
  return std::string_view(address).substr(0, kUnix.size()) == kUnix;
}

absl::Status CheckAddress(const std::string& address) {
  if (IsUnixAddress(address)) {
    const size_t length = address.size() - kUnix.size();
    if (length > 0 && length <= kLongestPath) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("\"", Printable(address), "\": the path has ",
                                                   length, " bytes, 1 to ", kLongestPath, " fit"));
  }
  const auto tcp = ParseHostPort(address);
  if (tcp.ok() && tcp->port > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "\"", Printable(address),
      "\" is not an address: HOST:PORT is, with a port from 1 to 65535, or unix:PATH"));
}

}  // namespace switchyard::cli
