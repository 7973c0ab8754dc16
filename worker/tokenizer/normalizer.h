#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/tokenizer/regex.h"
#include "worker/tokenizer/spec.h"

namespace switchyard::worker::tokenizer {

// Rewrites text before it is split. Const methods may be called from many threads.
class Normalizer {
 public:
  // INVALID_ARGUMENT if a pattern does not compile.
  static absl::StatusOr<Normalizer> Make(std::vector<NormalizerSpec> steps);

  // Rewrites `*text` (valid UTF-8) in place. INVALID_ARGUMENT if the result would be larger than
  // kMaxTextBytes, or a pattern needs too many steps.
  absl::Status Apply(std::string* text) const;

 private:
  struct Step {
    NormalizerSpec spec;
    std::optional<Regex> pattern;
  };
  std::vector<Step> steps_;
};

// Replaces every match; used by the Replace decoder as well. INVALID_ARGUMENT as above.
absl::Status ReplaceAll(const Regex& pattern, const std::string& content, std::string* text);

// Of one text, before and after it is normalized: positions in it fit 32 bits.
constexpr size_t kMaxTextBytes = size_t{1} << 30;

}  // namespace switchyard::worker::tokenizer
