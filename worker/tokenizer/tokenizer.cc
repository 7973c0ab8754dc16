#include "worker/tokenizer/tokenizer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/status_macros.h"
#include "worker/tokenizer/tokenizer_json.h"
#include "worker/tokenizer/tokenizer_parts.h"

namespace switchyard::worker {
namespace {

constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;

// The component's name before what it says.
absl::Status Named(const char* component, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(component, ": ", std::string(status.message())));
}

template <typename T>
absl::Status Put(const char* component, absl::StatusOr<T> made, T* out) {
  if (!made.ok()) return Named(component, made.status());
  *out = *std::move(made);
  return absl::OkStatus();
}

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& path) {
  ASSIGN_OR_RETURN(std::string text, ReadFile(path, kMaxFileBytes));
  return Parse(text, path);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Parse(const std::string& json_text,
                                                            const std::string& name_for_errors) {
  using namespace tokenizer;  // NOLINT: all of it is this function's material
  ASSIGN_OR_RETURN(TokenizerSpec spec, ParseTokenizerJson(json_text, name_for_errors));
  auto parts = std::make_unique<Parts>();
  auto build = [&]() -> absl::Status {
    RETURN_IF_ERROR(Put("model", Bpe::Make(std::move(spec.model)), &parts->model));
    RETURN_IF_ERROR(
        Put("normalizer", Normalizer::Make(std::move(spec.normalizers)), &parts->normalizer));
    RETURN_IF_ERROR(Put("pre_tokenizer", PreTokenizer::Make(std::move(spec.pre_tokenizers)),
                        &parts->pre_tokenizer));
    RETURN_IF_ERROR(Put("added_tokens",
                        AddedTokens::Make(std::move(spec.added_tokens), parts->model.vocabulary(),
                                          parts->normalizer),
                        &parts->added));
    RETURN_IF_ERROR(
        Put("decoder", Decoder::Make(spec.has_decoder, std::move(spec.decoders)), &parts->decoder));
    for (const TemplateSpec& items : spec.templates) {
      for (const TemplateItem& item : items) {
        for (int32_t id : item.ids) {
          if (parts->TokenOf(id) != nullptr) continue;
          return absl::InvalidArgumentError(
              absl::StrCat("post_processor: id ", id, " is not in the vocabulary"));
        }
      }
    }
    parts->templates = std::move(spec.templates);
    return absl::OkStatus();
  };
  if (absl::Status status = build(); !status.ok()) return Named(name_for_errors.c_str(), status);
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(parts)));
}

const std::string* Tokenizer::Parts::TokenOf(int32_t id) const {
  if (const std::string* spelling = added.Spelling(id)) return spelling;
  return model.vocabulary().Token(id);
}

absl::StatusOr<std::string> Tokenizer::Decode(std::span<const int32_t> ids,
                                              bool skip_special_tokens) const {
  tokenizer::DecodeStream stream(parts_->decoder);
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::string* token = parts_->TokenOf(ids[i]);
    if (token == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("id ", ids[i], " at position ", i,
                                                     " is not in the vocabulary of ", vocab_size(),
                                                     " ids"));
    }
    if (skip_special_tokens && parts_->added.IsSpecial(ids[i])) continue;
    stream.Push(*token);
  }
  stream.Finish();
  return stream.TakeText();
}

int32_t Tokenizer::vocab_size() const {
  return std::max(parts_->model.vocabulary().size(), parts_->added.size());
}

std::optional<int32_t> Tokenizer::TokenToId(std::string_view token) const {
  if (const tokenizer::AddedTokenSpec* added = parts_->added.Find(token)) return added->id;
  return parts_->model.vocabulary().Find(token);
}

std::optional<std::string> Tokenizer::IdToToken(int32_t id) const {
  const std::string* token = parts_->TokenOf(id);
  return token == nullptr ? std::nullopt : std::optional<std::string>(*token);
}

bool Tokenizer::IsSpecial(int32_t id) const { return parts_->added.IsSpecial(id); }

}  // namespace switchyard::worker
