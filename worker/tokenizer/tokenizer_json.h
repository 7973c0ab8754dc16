#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "worker/tokenizer/spec.h"

namespace switchyard::worker::tokenizer {

// Reads a tokenizer.json, which is not trusted. INVALID_ARGUMENT, opened by `name`, names the
// component and the value that is missing, of the wrong type, out of range or not supported.
// `truncation` and `padding` are ignored: cutting and padding prompts is not a tokenizer's business
// here.
absl::StatusOr<TokenizerSpec> ParseTokenizerJson(const std::string& text, const std::string& name);

}  // namespace switchyard::worker::tokenizer
