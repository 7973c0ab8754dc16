#pragma once

#include <string>
#include <string_view>

// Classes of characters, each the set that the published tokenizers' library means by it, which is
// not always today's Unicode (unicode_versions.h).
namespace switchyard::worker::tokenizer {

bool IsWhiteSpace(char32_t c);   // the property White_Space
bool IsNumeric(char32_t c);      // general categories Nd, Nl, No
bool IsPunctuation(char32_t c);  // ASCII punctuation and symbols, and general categories P*
bool IsMark(char32_t c);         // general categories Mn, Mc, Me
bool IsWord(char32_t c);         // Alphabetic, marks, Nd, Pc and the two joiners: \w of UTS 18

// The lower case of one character out of context (no final sigma), appended as UTF-8.
void AppendLowercase(char32_t c, std::string* out);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// `text` is valid UTF-8. Takes time in proportion to n log n also for long runs of combining marks.
std::string NormalizeUnicode(std::string_view text, NormalForm form);

}  // namespace switchyard::worker::tokenizer
