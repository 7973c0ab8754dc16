#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace switchyard::worker::tokenizer {

enum class Utf8Unit { kCharacter, kInvalid, kIncomplete };

// Looks at the start of `text` (not empty). kCharacter: `*length` bytes are one character.
// kInvalid: `*length` bytes are the longest start of a character that what follows breaks (at
// least 1; a lossy decoder writes one U+FFFD for them). kIncomplete: all of `text` is the start of
// a character.
Utf8Unit NextUtf8Unit(std::string_view text, size_t* length);

// The offset of the first byte that is not part of valid UTF-8, or npos.
size_t FindInvalidUtf8(std::string_view text);

// The character at `*pos` of valid UTF-8; moves `*pos` behind it.
char32_t DecodeUtf8(std::string_view text, size_t* pos);

// The character that ends before `*pos` (> 0) of valid UTF-8; moves `*pos` to its start.
char32_t DecodeUtf8Backward(std::string_view text, size_t* pos);

void AppendUtf8(char32_t c, std::string* out);

// Bytes that come in pieces, as text: a character comes out when it is whole, and a U+FFFD for
// every longest broken start of one.
class LossyUtf8Decoder {
 public:
  void Push(std::string_view bytes, std::string* out);
  // What is still incomplete becomes one U+FFFD.
  void Finish(std::string* out);

 private:
  std::string pending_;  // an incomplete character, at most 3 bytes
};

}  // namespace switchyard::worker::tokenizer
