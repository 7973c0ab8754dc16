#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace switchyard {

enum class Utf8Unit { kCharacter, kInvalid, kIncomplete };

// Looks at the start of `text` (not empty). kCharacter: `*length` bytes are one character.
// kInvalid: `*length` bytes are the longest start of a character that what follows breaks (at
// least 1; a lossy decoder writes one U+FFFD for them). kIncomplete: all of `text` is the start of
// a character.
Utf8Unit NextUtf8Unit(std::string_view text, size_t* length);

// The number of leading bytes that are ASCII, found a word at a time.
size_t AsciiPrefix(std::string_view text);

// The offset of the first byte that is not part of valid UTF-8, or npos.
size_t FindInvalidUtf8(std::string_view text);

// `text` as a protobuf string or a line of a message can hold it: a U+FFFD for every broken start
// of a character, and after `most` bytes, at the border of a character, "...". A peer refuses the
// whole message that has one string which is not UTF-8.
std::string ValidUtf8(std::string_view text, size_t most = size_t{64} << 10);

}  // namespace switchyard
