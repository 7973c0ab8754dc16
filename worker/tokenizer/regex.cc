#include "worker/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/tokenizer/oniguruma.h"
#include "worker/tokenizer/unicode_versions.h"
#include "worker/tokenizer/utf8.h"

namespace switchyard::worker::tokenizer {
namespace {

constexpr size_t kMaxPatternBytes = 1 << 16;
constexpr uint32_t kMatchLimit = 20'000'000;  // backtracking steps from one starting point
constexpr uint32_t kHeapLimitKib = 64 << 10;
constexpr size_t kJitStackBytes = size_t{32} << 20;

struct Free {
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
};
template <typename T>
using Owned = std::unique_ptr<T, Free>;

std::string ErrorText(int code) {
  PCRE2_UCHAR buffer[256] = {};
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

// What a search needs beside the code; made anew for each text, so that searches share nothing.
class Search {
 public:
  explicit Search(const pcre2_code* code)
      : code_(code),
        data_(pcre2_match_data_create(1, nullptr)),
        context_(pcre2_match_context_create(nullptr)) {
    pcre2_set_match_limit(context_.get(), kMatchLimit);
    pcre2_set_heap_limit(context_.get(), kHeapLimitKib);
  }

  // The first match at or after `from`. Returns PCRE2's result: negative for none or an error.
  int Find(std::string_view text, size_t from, size_t* begin, size_t* end) {
    int rc = Match(text, from);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT && stack_ == nullptr) {
      // Few texts need more than the machine's stack gives, so the big one waits until then.
      stack_.reset(pcre2_jit_stack_create(32 << 10, kJitStackBytes, nullptr));
      pcre2_jit_stack_assign(context_.get(), nullptr, stack_.get());
      rc = Match(text, from);
    }
    if (rc >= 0) {
      const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data_.get());
      *begin = offsets[0];
      *end = offsets[1];
    }
    return rc;
  }

 private:
  int Match(std::string_view text, size_t from) {
    return pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                       PCRE2_NO_UTF_CHECK, data_.get(), context_.get());
  }

  const pcre2_code* code_;
  Owned<pcre2_jit_stack> stack_;  // outlives the context that points to it
  Owned<pcre2_match_data> data_;
  Owned<pcre2_match_context> context_;
};

}  // namespace

void Regex::FreeCode::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

absl::StatusOr<Regex> Regex::Compile(const PatternSpec& pattern) {
  Regex regex;
  regex.pattern_ = pattern;
  if (!pattern.is_regex && !pattern.text.empty()) return regex;
  if (pattern.text.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("pattern of ", pattern.text.size(), " bytes, at most ", kMaxPatternBytes));
  }
  auto wrong = [&](const std::string& why) {
    return absl::InvalidArgumentError(absl::StrCat("pattern \"", pattern.text, "\": ", why));
  };
  absl::StatusOr<std::string> translated = TranslateOniguruma(pattern.text);
  if (!translated.ok()) return wrong(std::string(translated.status().message()));

  Owned<pcre2_compile_context> context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 100);
  int error = 0;
  PCRE2_SIZE offset = 0;
  regex.code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated->data()),
                                  translated->size(),
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                                  &error, &offset, context.get()));
  if (regex.code_ == nullptr) return wrong(ErrorText(error));
  // Without the compiler (where memory may not be made executable) matching is slower, no more.
  pcre2_jit_compile(regex.code_.get(), PCRE2_JIT_COMPLETE);
  return regex;
}

absl::Status Regex::ForEachMatch(std::string_view text,
                                 absl::FunctionRef<void(size_t begin, size_t end)> on_match) const {
  if (text.empty()) return absl::OkStatus();
  if (code_ == nullptr) {
    for (size_t at = text.find(pattern_.text); at != std::string_view::npos;
         at = text.find(pattern_.text, at + pattern_.text.size())) {
      on_match(at, at + pattern_.text.size());
    }
    return absl::OkStatus();
  }
  // Characters that PCRE2 does not know yet are matched as older ones of the same length, so that
  // all offsets hold.
  std::string known;
  if (UseStandIns(text, &known)) text = known;
  Search search(code_.get());
  size_t from = 0;
  size_t last_end = std::string_view::npos;
  while (from <= text.size()) {
    size_t begin = 0, end = 0;
    const int rc = search.Find(text, from, &begin, &end);
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) {
      return absl::InvalidArgumentError(absl::StrCat(
          "pattern \"", pattern_.text, "\" on this text, at byte ", from, ": ", ErrorText(rc)));
    }
    if (begin == end && end == last_end) {
      if (end == text.size()) break;
      from = end;
      DecodeUtf8(text, &from);
      continue;
    }
    on_match(begin, end);
    from = last_end = end;
  }
  return absl::OkStatus();
}

}  // namespace switchyard::worker::tokenizer
