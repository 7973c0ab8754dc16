#pragma once

#include <string>
#include <string_view>

// The published tokenizers' library knows several versions of Unicode at once: its normalizer has
// the tables of Unicode 9, its patterns those of 16, its punctuation those of 8. Ids must agree
// with it, so what our libraries (Unicode 14 and 15) know more or less is told apart here. The
// ranges were found by asking the library about every code point (tokenizers 0.23).
namespace switchyard::worker::tokenizer {

// Normalization leaves this character alone and takes it for a base, whatever Unicode says by now.
bool HasNoNormalization(char32_t c);
// StripAccents does not take this mark for one.
bool IsNewMark(char32_t c);
// Punctuation does not take this character for one.
bool IsNewPunctuation(char32_t c);

// For a character that our libraries do not know yet, an older one that they treat as it should be
// treated, with as many bytes; else the character itself.
char32_t StandIn(char32_t c);
// The same for a text: false if nothing had to be replaced, and then `*out` is untouched.
bool UseStandIns(std::string_view text, std::string* out);

}  // namespace switchyard::worker::tokenizer
