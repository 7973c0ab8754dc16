#pragma once

#include <cstdint>
#include <string>
#include <string_view>

// GPT-2's alphabet: each of the 256 bytes is written as one printable character, so that a
// vocabulary of byte strings can be kept as text.
namespace switchyard::worker::tokenizer {

// Every byte of `bytes`, written in the alphabet.
void AppendByteLevel(std::string_view bytes, std::string* out);

// The bytes that a token stands for. A token with any character outside the alphabet (an added
// token, as a rule) stands for itself.
void AppendByteLevelDecoded(std::string_view token, std::string* out);

}  // namespace switchyard::worker::tokenizer
