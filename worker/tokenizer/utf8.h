#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "common/utf8.h"

namespace switchyard::worker::tokenizer {

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
