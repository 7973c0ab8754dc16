#include "cli/outcome.h"

#include <cstdio>
#include <string>

#include "common/printable.h"

namespace switchyard::cli {

int Outcome(const absl::Status& status) {
  if (status.ok()) return kDone;
  const std::string message =
      Printable(std::string_view(status.message().data(), status.message().size()), kLines);
  std::fprintf(stderr, "switchyard: %s: %s\n", absl::StatusCodeToString(status.code()).c_str(),
               message.c_str());
  return kRefused;
}

}  // namespace switchyard::cli
