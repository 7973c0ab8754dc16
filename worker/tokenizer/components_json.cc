#include "worker/tokenizer/components_json.h"

#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/tokenizer/utf8.h"

namespace switchyard::worker::tokenizer {
namespace {

constexpr size_t kMaxContentBytes = 4096;

absl::Status NotSupported(const JsonNode& node, const std::string& type) {
  return node.Wrong(absl::StrCat("type \"", type, "\" is not supported"));
}

// {"String": "..."} or {"Regex": "..."}.
absl::StatusOr<PatternSpec> ParsePattern(const JsonNode& node) {
  ASSIGN_OR_RETURN(JsonNode pattern, node.Get("pattern"));
  PatternSpec spec;
  spec.is_regex = pattern.Has("Regex");
  ASSIGN_OR_RETURN(spec.text, pattern.GetString(spec.is_regex ? "Regex" : "String"));
  return spec;
}

absl::StatusOr<std::string> ParseContent(const JsonNode& node, const char* key) {
  ASSIGN_OR_RETURN(std::string content, node.GetString(key));
  if (content.size() > kMaxContentBytes) {
    return node.Wrong(
        absl::StrCat(key, " has ", content.size(), " bytes, at most ", kMaxContentBytes));
  }
  return content;
}

absl::StatusOr<std::string> ParseCharacter(const JsonNode& node, const char* key) {
  ASSIGN_OR_RETURN(std::string text, node.GetString(key));
  size_t end = 0;
  if (!text.empty()) DecodeUtf8(text, &end);
  if (text.empty() || end != text.size()) {
    return node.Wrong(absl::StrCat(key, " must be one character and is \"", text, "\""));
  }
  return text;
}

// prepend_scheme, and add_prefix_space as older files have it.
absl::StatusOr<PrependScheme> ParsePrependScheme(const JsonNode& node) {
  PrependScheme scheme = PrependScheme::kAlways;
  const bool named = node.Has("prepend_scheme");
  if (named) {
    ASSIGN_OR_RETURN(std::string name, node.GetString("prepend_scheme"));
    if (name == "never") {
      scheme = PrependScheme::kNever;
    } else if (name == "first") {
      scheme = PrependScheme::kFirst;
    } else if (name != "always") {
      return node.Wrong(absl::StrCat("prepend_scheme \"", name, "\" is not supported"));
    }
  }
  ASSIGN_OR_RETURN(bool add_prefix_space, node.GetBoolOr("add_prefix_space", true));
  if (!add_prefix_space) {
    if (named && scheme != PrependScheme::kNever) {
      return node.Wrong("add_prefix_space is false, and prepend_scheme is not \"never\"");
    }
    scheme = PrependScheme::kNever;
  }
  return scheme;
}

absl::StatusOr<SplitBehavior> ParseBehavior(const JsonNode& node) {
  ASSIGN_OR_RETURN(std::string name, node.GetString("behavior"));
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return node.Wrong(absl::StrCat("behavior \"", name, "\" is not supported"));
}

absl::StatusOr<TemplateSpec> ParseTemplate(const JsonNode& node) {
  ASSIGN_OR_RETURN(std::vector<JsonNode> items, node.GetArray("single"));
  ASSIGN_OR_RETURN(JsonNode tokens, node.Get("special_tokens"));
  if (items.size() > 64) return node.Wrong("single has more than 64 items");
  TemplateSpec spec;
  size_t texts = 0;
  for (const JsonNode& item : items) {
    TemplateItem out;
    if (item.Has("Sequence")) {
      ASSIGN_OR_RETURN(JsonNode sequence, item.Get("Sequence"));
      ASSIGN_OR_RETURN(std::string id, sequence.GetString("id"));
      if (id != "A") return sequence.Wrong(absl::StrCat("id \"", id, "\" must be \"A\""));
      if (++texts > 1) return sequence.Wrong("repeats the text");
      out.is_text = true;
    } else {
      ASSIGN_OR_RETURN(JsonNode special, item.Get("SpecialToken"));
      ASSIGN_OR_RETURN(std::string id, special.GetString("id"));
      ASSIGN_OR_RETURN(JsonNode token, tokens.Get(id.c_str()));
      ASSIGN_OR_RETURN(std::vector<JsonNode> ids, token.GetArray("ids"));
      if (ids.size() > 64) return token.Wrong("has more than 64 ids");
      for (const JsonNode& one : ids) {
        ASSIGN_OR_RETURN(int32_t value, one.AsInt(0, kMaxTokenId));
        out.ids.push_back(value);
      }
    }
    spec.push_back(std::move(out));
  }
  return spec;
}

// BERT's and RoBERTa's: cls, text, sep.
absl::StatusOr<TemplateSpec> ParseClsSep(const JsonNode& node) {
  TemplateSpec spec;
  for (const char* key : {"cls", "sep"}) {
    ASSIGN_OR_RETURN(std::vector<JsonNode> pair, node.GetArray(key));
    if (pair.size() != 2) return node.Wrong(absl::StrCat(key, " must be [token, id]"));
    ASSIGN_OR_RETURN(int32_t id, pair[1].AsInt(0, kMaxTokenId));
    spec.push_back({false, {id}});
    if (spec.size() == 1) spec.push_back({true, {}});
  }
  return spec;
}

}  // namespace

absl::StatusOr<NormalizerSpec> ParseNormalizer(const JsonNode& node, const std::string& type) {
  using Kind = NormalizerSpec::Kind;
  constexpr std::pair<const char*, Kind> kPlain[] = {
      {"NFC", Kind::kNfc},
      {"NFD", Kind::kNfd},
      {"NFKC", Kind::kNfkc},
      {"NFKD", Kind::kNfkd},
      {"Lowercase", Kind::kLowercase},
      {"StripAccents", Kind::kStripAccents},
  };
  NormalizerSpec spec;
  for (const auto& [name, kind] : kPlain) {
    if (type == name) {
      spec.kind = kind;
      return spec;
    }
  }
  if (type == "Strip") {
    spec.kind = Kind::kStrip;
    ASSIGN_OR_RETURN(spec.strip_left, node.GetBool("strip_left"));
    ASSIGN_OR_RETURN(spec.strip_right, node.GetBool("strip_right"));
  } else if (type == "Prepend") {
    spec.kind = Kind::kPrepend;
    ASSIGN_OR_RETURN(spec.content, ParseContent(node, "prepend"));
  } else if (type == "Replace") {
    spec.kind = Kind::kReplace;
    ASSIGN_OR_RETURN(spec.pattern, ParsePattern(node));
    ASSIGN_OR_RETURN(spec.content, ParseContent(node, "content"));
  } else {
    return NotSupported(node, type);
  }
  return spec;
}

absl::StatusOr<PreTokenizerSpec> ParsePreTokenizer(const JsonNode& node, const std::string& type) {
  using Kind = PreTokenizerSpec::Kind;
  PreTokenizerSpec spec;
  if (type == "ByteLevel") {
    spec.kind = Kind::kByteLevel;
    ASSIGN_OR_RETURN(spec.add_prefix_space, node.GetBoolOr("add_prefix_space", true));
    ASSIGN_OR_RETURN(spec.use_regex, node.GetBoolOr("use_regex", true));
  } else if (type == "Split") {
    spec.kind = Kind::kSplit;
    ASSIGN_OR_RETURN(spec.pattern, ParsePattern(node));
    ASSIGN_OR_RETURN(spec.behavior, ParseBehavior(node));
    ASSIGN_OR_RETURN(spec.invert, node.GetBoolOr("invert", false));
  } else if (type == "Digits") {
    spec.kind = Kind::kDigits;
    ASSIGN_OR_RETURN(spec.individual_digits, node.GetBoolOr("individual_digits", false));
  } else if (type == "Metaspace") {
    spec.kind = Kind::kMetaspace;
    ASSIGN_OR_RETURN(spec.replacement, ParseCharacter(node, "replacement"));
    ASSIGN_OR_RETURN(spec.prepend_scheme, ParsePrependScheme(node));
    ASSIGN_OR_RETURN(spec.split, node.GetBoolOr("split", true));
  } else if (type == "Whitespace") {
    spec.kind = Kind::kWhitespace;
  } else if (type == "WhitespaceSplit") {
    spec.kind = Kind::kWhitespaceSplit;
  } else if (type == "Punctuation") {
    spec.kind = Kind::kPunctuation;
    if (node.Has("behavior")) {
      ASSIGN_OR_RETURN(spec.behavior, ParseBehavior(node));
    }
  } else {
    return NotSupported(node, type);
  }
  return spec;
}

absl::StatusOr<TemplateSpec> ParsePostProcessor(const JsonNode& node, const std::string& type) {
  if (type == "TemplateProcessing") return ParseTemplate(node);
  if (type == "BertProcessing" || type == "RobertaProcessing") return ParseClsSep(node);
  // ByteLevel only trims offsets, which nobody here asks for.
  if (type == "ByteLevel") return TemplateSpec{{true, {}}};
  return NotSupported(node, type);
}

absl::StatusOr<DecoderSpec> ParseDecoder(const JsonNode& node, const std::string& type) {
  using Kind = DecoderSpec::Kind;
  DecoderSpec spec;
  if (type == "ByteLevel") {
    spec.kind = Kind::kByteLevel;
  } else if (type == "ByteFallback") {
    spec.kind = Kind::kByteFallback;
  } else if (type == "Fuse") {
    spec.kind = Kind::kFuse;
  } else if (type == "Replace") {
    spec.kind = Kind::kReplace;
    ASSIGN_OR_RETURN(spec.pattern, ParsePattern(node));
    ASSIGN_OR_RETURN(spec.content, ParseContent(node, "content"));
  } else if (type == "Strip") {
    spec.kind = Kind::kStrip;
    ASSIGN_OR_RETURN(spec.content, ParseCharacter(node, "content"));
    ASSIGN_OR_RETURN(int32_t start, node.GetInt("start", 0, 1 << 20));
    ASSIGN_OR_RETURN(int32_t stop, node.GetInt("stop", 0, 1 << 20));
    spec.start = static_cast<uint32_t>(start);
    spec.stop = static_cast<uint32_t>(stop);
  } else if (type == "Metaspace") {
    spec.kind = Kind::kMetaspace;
    ASSIGN_OR_RETURN(spec.replacement, ParseCharacter(node, "replacement"));
    ASSIGN_OR_RETURN(spec.prepend_scheme, ParsePrependScheme(node));
  } else {
    return NotSupported(node, type);
  }
  return spec;
}

}  // namespace switchyard::worker::tokenizer
