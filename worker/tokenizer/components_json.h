#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "worker/tokenizer/json_node.h"
#include "worker/tokenizer/spec.h"

// The steps of a tokenizer.json's components, each from its JSON object (Sequences are taken apart
// before). INVALID_ARGUMENT names the path and the value.
namespace switchyard::worker::tokenizer {

absl::StatusOr<NormalizerSpec> ParseNormalizer(const JsonNode& node, const std::string& type);
absl::StatusOr<PreTokenizerSpec> ParsePreTokenizer(const JsonNode& node, const std::string& type);
absl::StatusOr<TemplateSpec> ParsePostProcessor(const JsonNode& node, const std::string& type);
absl::StatusOr<DecoderSpec> ParseDecoder(const JsonNode& node, const std::string& type);

}  // namespace switchyard::worker::tokenizer
