#include "worker/tokenizer/tokenizer_json.h"

#include <nlohmann/json.hpp>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/status_macros.h"
#include "worker/tokenizer/components_json.h"
#include "worker/tokenizer/json_node.h"

namespace switchyard::worker::tokenizer {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;
constexpr int kMaxNesting = 16;                  // of Sequences
constexpr size_t kMaxSteps = 64;                 // of one component
constexpr size_t kMaxEntries = size_t{1} << 24;  // of vocabulary, merges or added tokens

// Runs `leaf` on a component, or on the members of a Sequence, in order. A Sequence keeps them
// under `list_key`.
absl::Status Flatten(const JsonNode& node, const char* list_key, int depth, size_t* count,
                     absl::FunctionRef<absl::Status(const JsonNode&, const std::string&)> leaf) {
  ASSIGN_OR_RETURN(std::string type, node.GetString("type"));
  if (type != "Sequence") {
    if (++*count > kMaxSteps)
      return node.Wrong(absl::StrCat("is step ", *count, ", at most ", kMaxSteps));
    return leaf(node, type);
  }
  if (depth >= kMaxNesting) return node.Wrong("is nested too deep");
  ASSIGN_OR_RETURN(std::vector<JsonNode> members, node.GetArray(list_key));
  for (const JsonNode& member : members) {
    RETURN_IF_ERROR(Flatten(member, list_key, depth + 1, count, leaf));
  }
  return absl::OkStatus();
}

template <typename Spec>
absl::Status ParseSteps(const JsonNode& root, const char* key, const char* list_key,
                        absl::StatusOr<Spec> (*parse)(const JsonNode&, const std::string&),
                        std::vector<Spec>* out) {
  if (!root.Has(key)) return absl::OkStatus();
  ASSIGN_OR_RETURN(JsonNode node, root.Get(key));
  size_t count = 0;
  return Flatten(node, list_key, 0, &count,
                 [&](const JsonNode& step, const std::string& type) -> absl::Status {
                   ASSIGN_OR_RETURN(Spec spec, parse(step, type));
                   out->push_back(std::move(spec));
                   return absl::OkStatus();
                 });
}

absl::Status ParseAddedTokens(const JsonNode& root, std::vector<AddedTokenSpec>* out) {
  if (!root.Has("added_tokens")) return absl::OkStatus();
  ASSIGN_OR_RETURN(std::vector<JsonNode> nodes, root.GetArray("added_tokens"));
  if (nodes.size() > kMaxEntries) {
    return root.Wrong(
        absl::StrCat("added_tokens has ", nodes.size(), " entries, at most ", kMaxEntries));
  }
  for (const JsonNode& node : nodes) {
    AddedTokenSpec token;
    ASSIGN_OR_RETURN(token.id, node.GetInt("id", 0, kMaxTokenId));
    ASSIGN_OR_RETURN(token.content, node.GetString("content"));
    ASSIGN_OR_RETURN(token.special, node.GetBoolOr("special", false));
    ASSIGN_OR_RETURN(token.lstrip, node.GetBoolOr("lstrip", false));
    ASSIGN_OR_RETURN(token.rstrip, node.GetBoolOr("rstrip", false));
    ASSIGN_OR_RETURN(token.single_word, node.GetBoolOr("single_word", false));
    ASSIGN_OR_RETURN(token.normalized, node.GetBoolOr("normalized", !token.special));
    out->push_back(std::move(token));
  }
  return absl::OkStatus();
}

absl::Status ParseVocab(const JsonNode& model, BpeSpec* bpe) {
  ASSIGN_OR_RETURN(JsonNode vocab, model.Get("vocab"));
  RETURN_IF_ERROR(vocab.MustBeObject());
  if (vocab.value().size() > kMaxEntries) {
    return vocab.Wrong(
        absl::StrCat("has ", vocab.value().size(), " tokens, at most ", kMaxEntries));
  }
  bpe->vocab.reserve(vocab.value().size());
  for (auto it = vocab.value().begin(); it != vocab.value().end(); ++it) {
    // The path is made only for a message: there are hundreds of thousands.
    absl::StatusOr<int32_t> id = JsonNode(it.value(), "its id").AsInt(0, kMaxTokenId);
    if (!id.ok()) {
      return vocab.Wrong(
          absl::StrCat("token \"", it.key(), "\": ", std::string(id.status().message())));
    }
    bpe->vocab.emplace_back(it.key(), *id);
  }
  return absl::OkStatus();
}

absl::Status ParseMerges(const JsonNode& model, BpeSpec* bpe) {
  ASSIGN_OR_RETURN(JsonNode merges, model.Get("merges"));
  if (!merges.value().is_array()) return merges.Wrong("must be a list");
  if (merges.value().size() > kMaxEntries) {
    return merges.Wrong(
        absl::StrCat("has ", merges.value().size(), " entries, at most ", kMaxEntries));
  }
  bpe->merges.reserve(merges.value().size());
  size_t i = 0;
  for (const nlohmann::json& merge : merges.value()) {
    auto wrong = [&] {
      return absl::InvalidArgumentError(
          absl::StrCat(merges.path(), "[", i, "] must be \"a b\" or [\"a\", \"b\"]"));
    };
    if (const auto* text = merge.get_ptr<const std::string*>()) {
      const size_t space = text->find(' ');
      if (space == std::string::npos || text->find(' ', space + 1) != std::string::npos)
        return wrong();
      bpe->merges.emplace_back(text->substr(0, space), text->substr(space + 1));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      bpe->merges.emplace_back(*merge[0].get_ptr<const std::string*>(),
                               *merge[1].get_ptr<const std::string*>());
    } else {
      return wrong();
    }
    ++i;
  }
  return absl::OkStatus();
}

absl::Status ParseModel(const JsonNode& root, BpeSpec* bpe) {
  ASSIGN_OR_RETURN(JsonNode model, root.Get("model"));
  // Old files do not say what their model is; merges are BPE's own.
  if (model.Has("type") || !model.Has("merges")) {
    ASSIGN_OR_RETURN(std::string type, model.GetString("type"));
    if (type != "BPE") return model.Wrong(absl::StrCat("type \"", type, "\" is not supported"));
  }
  if (model.Has("dropout")) {
    ASSIGN_OR_RETURN(JsonNode dropout, model.Get("dropout"));
    if (!dropout.value().is_number() || dropout.value().get<double>() != 0) {
      return dropout.Wrong("is set, which is not supported");
    }
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model.Has(key)) continue;
    ASSIGN_OR_RETURN(std::string affix, model.GetString(key));
    if (!affix.empty()) {
      return model.Wrong(absl::StrCat(key, " \"", affix, "\" is not supported"));
    }
  }
  if (model.Has("unk_token")) {
    ASSIGN_OR_RETURN(bpe->unk_token, model.GetString("unk_token"));
  }
  ASSIGN_OR_RETURN(bpe->fuse_unk, model.GetBoolOr("fuse_unk", false));
  ASSIGN_OR_RETURN(bpe->byte_fallback, model.GetBoolOr("byte_fallback", false));
  ASSIGN_OR_RETURN(bpe->ignore_merges, model.GetBoolOr("ignore_merges", false));
  RETURN_IF_ERROR(ParseVocab(model, bpe));
  return ParseMerges(model, bpe);
}

absl::StatusOr<TokenizerSpec> ParseRoot(const JsonNode& root) {
  TokenizerSpec spec;
  if (!root.value().is_object()) return absl::InvalidArgumentError("must be a JSON object");
  RETURN_IF_ERROR(ParseModel(root, &spec.model));
  RETURN_IF_ERROR(ParseAddedTokens(root, &spec.added_tokens));
  RETURN_IF_ERROR(
      ParseSteps(root, "normalizer", "normalizers", ParseNormalizer, &spec.normalizers));
  RETURN_IF_ERROR(
      ParseSteps(root, "pre_tokenizer", "pretokenizers", ParsePreTokenizer, &spec.pre_tokenizers));
  RETURN_IF_ERROR(
      ParseSteps(root, "post_processor", "processors", ParsePostProcessor, &spec.templates));
  RETURN_IF_ERROR(ParseSteps(root, "decoder", "decoders", ParseDecoder, &spec.decoders));
  spec.has_decoder = root.Has("decoder");
  return spec;
}

}  // namespace

absl::StatusOr<TokenizerSpec> ParseTokenizerJson(const std::string& text, const std::string& name) {
  ASSIGN_OR_RETURN(nlohmann::json document, ParseJson(text, name, kMaxFileBytes));
  absl::StatusOr<TokenizerSpec> spec = ParseRoot(JsonNode(document, ""));
  if (spec.ok()) return spec;
  return absl::Status(spec.status().code(),
                      absl::StrCat(name, ": ", std::string(spec.status().message())));
}

}  // namespace switchyard::worker::tokenizer
