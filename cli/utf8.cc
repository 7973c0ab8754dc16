#include "cli/utf8.h"

#include <iostream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "common/utf8.h"

namespace switchyard::cli {
absl::Status CheckUtf8(const std::string& text, const char* what) {
  const size_t at = FindInvalidUtf8(text);
  if (at == std::string::npos) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, " is not valid UTF-8 at byte ", at));
}

std::string TextOrInput(const std::string& text) {
  if (text != "-") return text;
  return std::string(std::istreambuf_iterator<char>(std::cin), {});
}

}  // namespace switchyard::cli
