#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "worker/tokenizer/spec.h"

struct pcre2_real_code_8;

namespace switchyard::worker::tokenizer {

// A compiled pattern of a tokenizer.json. Const methods may be called from many threads.
class Regex {
 public:
  // INVALID_ARGUMENT if the pattern cannot be compiled, or needs what PCRE2 does not have.
  static absl::StatusOr<Regex> Compile(const PatternSpec& pattern);

  // Calls `on_match(begin, end)` for every match in valid UTF-8, from left to right. An empty match
  // right behind the match before it does not count, and an empty text has no matches.
  // INVALID_ARGUMENT if a match needs more steps or memory than is allowed.
  absl::Status ForEachMatch(std::string_view text,
                            absl::FunctionRef<void(size_t begin, size_t end)> on_match) const;

 private:
  struct FreeCode {
    void operator()(pcre2_real_code_8* code) const;
  };
  PatternSpec pattern_;
  std::unique_ptr<pcre2_real_code_8, FreeCode> code_;  // null: a literal that is not empty
};

}  // namespace switchyard::worker::tokenizer
