#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace switchyard::worker::tokenizer {

// The patterns of tokenizer.json are written for Oniguruma; this rewrites one for PCRE2 (UTF and
// UCP, multi-line, newline is LF) so that it matches the same text. What differs and is rewritten:
// \s \w \h \v \b and their opposites, \p{...} of scripts and long category names, (?m),
// `{,n}`, and `{n,m}+`, which is not possessive there. INVALID_ARGUMENT names what has no
// counterpart: nested and intersected character classes, callouts, recursion, conditionals. One
// thing is silently not there: without regard to case, ß does not match ss, nor a ligature its
// letters.
absl::StatusOr<std::string> TranslateOniguruma(std::string_view pattern);

}  // namespace switchyard::worker::tokenizer
