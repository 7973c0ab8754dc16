#include "common/utf8.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace switchyard {

size_t AsciiPrefix(std::string_view text) {
  size_t i = 0;
  for (; i + 8 <= text.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + i, 8);
    if (word & 0x8080808080808080u) break;
  }
  while (i < text.size() && static_cast<uint8_t>(text[i]) < 0x80) ++i;
  return i;
}

Utf8Unit NextUtf8Unit(std::string_view text, size_t* length) {
  const uint8_t lead = static_cast<uint8_t>(text[0]);
  *length = 1;
  if (lead < 0x80) return Utf8Unit::kCharacter;
  if (lead < 0xC2 || lead > 0xF4) return Utf8Unit::kInvalid;
  const size_t want = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  // The second byte's range keeps out overlong forms, surrogates and what is above U+10FFFF.
  uint8_t low = 0x80, high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (size_t i = 1; i < want; ++i) {
    *length = i;
    if (i == text.size()) return Utf8Unit::kIncomplete;
    const uint8_t byte = static_cast<uint8_t>(text[i]);
    if (byte < low || byte > high) return Utf8Unit::kInvalid;
    low = 0x80;
    high = 0xBF;
  }
  *length = want;
  return Utf8Unit::kCharacter;
}

size_t FindInvalidUtf8(std::string_view text) {
  size_t pos = 0;
  while (true) {
    pos += AsciiPrefix(text.substr(pos));
    if (pos == text.size()) return std::string_view::npos;
    size_t length;
    if (NextUtf8Unit(text.substr(pos), &length) != Utf8Unit::kCharacter) return pos;
    pos += length;
  }
}

std::string ValidUtf8(std::string_view text, size_t most) {
  std::string valid;
  valid.reserve(std::min(text.size(), most));
  while (!text.empty()) {
    size_t length;
    const bool whole = NextUtf8Unit(text, &length) == Utf8Unit::kCharacter;
    const std::string_view unit = whole ? text.substr(0, length) : "\xEF\xBF\xBD";
    if (valid.size() + unit.size() > most) return valid + "...";
    valid.append(unit);
    text.remove_prefix(length);
  }
  return valid;
}

}  // namespace switchyard
