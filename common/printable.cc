#include "common/printable.h"

#include "absl/strings/str_format.h"
#include "common/utf8.h"

namespace switchyard {
namespace {

// C0, DEL, and C1, whose characters are two bytes of UTF-8.
bool IsControl(std::string_view character) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(character[i]); };
  if (character.size() == 1) return byte(0) < 0x20 || byte(0) == 0x7F;
  return character.size() == 2 && byte(0) == 0xC2 && byte(1) < 0xA0;
}

}  // namespace

std::string Printable(std::string_view text, PrintableAs as) {
  const std::string valid = ValidUtf8(text, text.size() * 3);  // U+FFFD is three bytes
  std::string out;
  for (size_t at = 0; at < valid.size();) {
    size_t length = 1;
    NextUtf8Unit(std::string_view(valid).substr(at), &length);
    const std::string character = valid.substr(at, length);
    const bool layout = character == "\n" || character == "\t";
    if (IsControl(character) && !(layout && as == kLines)) {
      out += absl::StrFormat("\\x%02X", static_cast<unsigned char>(character.back()));
    } else {
      out += character;
    }
    at += length;
  }
  return out;
}

}  // namespace switchyard
