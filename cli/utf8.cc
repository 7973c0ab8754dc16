#include "cli/utf8.h"

#include <iostream>
#include <iterator>

#include "absl/strings/str_cat.h"

namespace switchyard::cli {
namespace {

// Length of the sequence that begins at `at`; 0 if it is not well-formed.
size_t SequenceLength(const std::string& text, size_t at) {
  const auto byte = [&](size_t i) -> uint32_t {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0;
  };
  const uint32_t first = byte(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  uint32_t code = first & (0xFF >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
    code = code << 6 | (byte(i) & 0x3F);
  }
  constexpr uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xD800 && code < 0xE000;
  return first < 0xC2 || first > 0xF4 || code < kLeast[length] || code > 0x10FFFF || surrogate
             ? 0
             : length;
}

}  // namespace

absl::Status CheckUtf8(const std::string& text, const char* what) {
  for (size_t at = 0; at < text.size();) {
    const size_t length = SequenceLength(text, at);
    if (length == 0) {
      return absl::InvalidArgumentError(absl::StrCat(what, " is not valid UTF-8 at byte ", at));
    }
    at += length;
  }
  return absl::OkStatus();
}

std::string TextOrInput(const std::string& text) {
  if (text != "-") return text;
  return std::string(std::istreambuf_iterator<char>(std::cin), {});
}

}  // namespace switchyard::cli
