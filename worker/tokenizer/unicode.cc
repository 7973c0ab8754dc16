#include "worker/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "worker/tokenizer/unicode_versions.h"
#include "worker/tokenizer/utf8.h"

namespace switchyard::worker::tokenizer {
namespace {

utf8proc_category_t Category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

int CombiningClass(utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; }

// Appends the full decomposition of `c`, marks not yet in order.
void Decompose(char32_t c, int options, std::vector<utf8proc_int32_t>* out) {
  utf8proc_int32_t buffer[32];  // the longest compatibility decomposition has 18
  int boundary = 0;
  const utf8proc_ssize_t n =
      utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), buffer, 32,
                              static_cast<utf8proc_option_t>(options), &boundary);
  if (n < 1 || n > 32) {
    out->push_back(static_cast<utf8proc_int32_t>(c));
    return;
  }
  out->insert(out->end(), buffer, buffer + n);
}

// Canonical order. utf8proc's own exchanges neighbours, which is quadratic for a long run of marks.
void SortMarks(std::vector<utf8proc_int32_t>* text) {
  auto is_mark = [](utf8proc_int32_t c) { return CombiningClass(c) != 0; };
  for (auto begin = text->begin(); begin != text->end();) {
    begin = std::find_if(begin, text->end(), is_mark);
    auto end = std::find_if_not(begin, text->end(), is_mark);
    if (end - begin > 1) {
      std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
        return CombiningClass(a) < CombiningClass(b);
      });
    }
    begin = end;
  }
}

// Orders, composes and writes what is in `*scratch`, and empties it.
void Flush(bool compose, std::vector<utf8proc_int32_t>* scratch, std::string* out) {
  SortMarks(scratch);
  auto length = static_cast<utf8proc_ssize_t>(scratch->size());
  if (compose && length > 1) {
    const utf8proc_ssize_t composed = utf8proc_normalize_utf32(
        scratch->data(), length,
        static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
    if (composed >= 0) length = composed;
  }
  for (utf8proc_ssize_t i = 0; i < length; ++i) {
    AppendUtf8(static_cast<char32_t>((*scratch)[static_cast<size_t>(i)]), out);
  }
  scratch->clear();
}

// One stretch of text that no character outside it combines with.
void NormalizeStretch(std::string_view text, bool compose, int options,
                      std::vector<utf8proc_int32_t>* scratch, std::string* out) {
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = DecodeUtf8(text, &pos);
    if (HasNoNormalization(c)) {
      Flush(compose, scratch, out);
      AppendUtf8(c, out);
    } else {
      Decompose(c, options, scratch);
    }
  }
  Flush(compose, scratch, out);
}

// Pairs of cases that utf8proc does not know yet: from first to last, lower case is `offset` on.
struct CaseRange {
  char32_t first, last;
  int offset;
};
constexpr CaseRange kNewCases[] = {
    {0x1C89, 0x1C89, 1},      {0xA7CB, 0xA7CB, 0x264 - 0xA7CB},
    {0xA7CC, 0xA7CC, 1},      {0xA7CE, 0xA7CE, 1},
    {0xA7D2, 0xA7D2, 1},      {0xA7D4, 0xA7D4, 1},
    {0xA7DA, 0xA7DA, 1},      {0xA7DC, 0xA7DC, 0x19B - 0xA7DC},
    {0x10D50, 0x10D65, 0x20}, {0x16EA0, 0x16EB8, 0x1B},
};

}  // namespace

bool IsWhiteSpace(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 ||
         c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool IsNumeric(char32_t c) {
  // Unicode 17 has these; the stand-ins end at 16.
  if ((c >= 0x11DE0 && c <= 0x11DE9) || (c >= 0x16FF4 && c <= 0x16FF6)) return true;
  const utf8proc_category_t category = Category(StandIn(c));
  return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

bool IsPunctuation(char32_t c) {
  if (c < 0x80) {
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
           (c >= '{' && c <= '~');
  }
  // These two were punctuation once.
  if (c == 0x166D || c == 0x111C9) return true;
  if (IsNewPunctuation(c)) return false;
  const utf8proc_category_t category = Category(c);
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool IsMark(char32_t c) {
  if (c == 0x1CF2 || c == 0x1CF3) return true;  // letters by now
  if (IsNewMark(c)) return false;
  const utf8proc_category_t category = Category(c);
  return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

bool IsWord(char32_t c) {
  const utf8proc_category_t category = Category(StandIn(c));
  if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) return true;
  if (category == UTF8PROC_CATEGORY_PC || c == 0x200C || c == 0x200D) return true;
  // The symbols that are Alphabetic: circled, squared and other enclosed letters.
  return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
         (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

void AppendLowercase(char32_t c, std::string* out) {
  if (c == 0x130) {  // the one character whose lower case is two: i and a dot above
    out->append("i\xCC\x87");
    return;
  }
  for (const CaseRange& range : kNewCases) {
    if (c < range.first || c > range.last) continue;
    AppendUtf8(static_cast<char32_t>(static_cast<int>(c) + range.offset), out);
    return;
  }
  AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
}

std::string NormalizeUnicode(std::string_view text, NormalForm form) {
  const bool compose = form == NormalForm::kNfc || form == NormalForm::kNfkc;
  const bool compatibility = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
  const int options = UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compatibility ? UTF8PROC_COMPAT : 0);
  // Below this nothing changes by itself: no marks, and for NFC nothing that decomposes for good.
  const char32_t inert = form == NormalForm::kNfc ? 0x300 : 0x80;

  std::string out;
  out.reserve(text.size());
  std::vector<utf8proc_int32_t> scratch;
  size_t copied = 0;    // everything before it is in `out`
  size_t previous = 0;  // start of the last inert character: what comes next may combine with it
  for (size_t pos = 0; pos < text.size();) {
    const size_t start = pos;
    if (DecodeUtf8(text, &pos) < inert) {
      previous = start;
      continue;
    }
    const size_t begin = std::max(previous, copied);
    size_t end = pos;
    while (pos < text.size()) {
      if (DecodeUtf8(text, &pos) < inert) break;
      end = pos;
    }
    out.append(text.substr(copied, begin - copied));
    NormalizeStretch(text.substr(begin, end - begin), compose, options, &scratch, &out);
    copied = previous = end;
    pos = end;
  }
  out.append(text.substr(copied));
  return out;
}

}  // namespace switchyard::worker::tokenizer
