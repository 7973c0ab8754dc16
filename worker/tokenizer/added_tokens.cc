#include "worker/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "worker/tokenizer/unicode.h"
#include "worker/tokenizer/utf8.h"

namespace switchyard::worker::tokenizer {
namespace {

// Looking for the longest token at every place costs at most so many steps a byte.
constexpr size_t kMaxContentBytes = 4096;

bool EndsWithWord(std::string_view text) {
  size_t pos = text.size();
  return pos > 0 && IsWord(DecodeUtf8Backward(text, &pos));
}

bool StartsWithWord(std::string_view text) {
  size_t pos = 0;
  return !text.empty() && IsWord(DecodeUtf8(text, &pos));
}

}  // namespace

void Trie::Insert(std::string_view key, int32_t value) {
  if (key.empty()) return;
  starts_[static_cast<uint8_t>(key[0])] = true;
  uint32_t node = 0;
  for (char c : key) {
    const auto next = static_cast<uint32_t>(values_.size());
    auto [it, is_new] = edges_.emplace(uint64_t{node} << 8 | static_cast<uint8_t>(c), next);
    if (is_new) values_.push_back(-1);
    node = it->second;
  }
  if (values_[node] < 0) values_[node] = value;
}

int32_t Trie::Longest(std::string_view text, size_t at, size_t* length) const {
  int32_t found = -1;
  uint32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    auto it = edges_.find(uint64_t{node} << 8 | static_cast<uint8_t>(text[i]));
    if (it == edges_.end()) break;
    node = it->second;
    if (values_[node] >= 0) {
      found = values_[node];
      *length = i + 1 - at;
    }
  }
  return found;
}

absl::StatusOr<AddedTokens> AddedTokens::Make(std::vector<AddedTokenSpec> tokens,
                                              const Vocabulary& vocabulary,
                                              const Normalizer& normalizer) {
  AddedTokens result;
  for (AddedTokenSpec& token : tokens) {
    auto wrong = [&](const std::string& why) {
      return absl::InvalidArgumentError(
          absl::StrCat("added token \"", token.content, "\" with id ", token.id, " ", why));
    };
    if (token.content.empty()) continue;  // nothing in a text to find
    if (token.content.size() > kMaxContentBytes) {
      return absl::InvalidArgumentError(absl::StrCat("added token with id ", token.id, " has ",
                                                     token.content.size(), " bytes, at most ",
                                                     kMaxContentBytes));
    }
    const std::optional<int32_t> known = vocabulary.Find(token.content);
    if (known && *known != token.id) return wrong(absl::StrCat("has id ", *known, " in the model"));
    const std::string* other = vocabulary.Token(token.id);
    if (other != nullptr && *other != token.content) {
      return wrong(absl::StrCat("takes the id of the model's token \"", *other, "\""));
    }
    const auto index = static_cast<int32_t>(result.tokens_.size());
    if (!result.by_id_.emplace(token.id, index).second) {
      return wrong("has the id of another added token");
    }
    if (!result.by_content_.emplace(token.content, index).second) {
      return wrong("stands twice among the added tokens");
    }
    result.spellings_.push_back(token.content);
    result.size_ = std::max(result.size_, token.id + 1);
    result.tokens_.push_back(std::move(token));
  }
  // Where two tokens are spelled alike once they are normalized, special ones come first.
  for (const bool special : {true, false}) {
    for (size_t i = 0; i < result.tokens_.size(); ++i) {
      const AddedTokenSpec& token = result.tokens_[i];
      if (token.special != special) continue;
      if (!token.normalized) {
        result.raw_.Insert(token.content, static_cast<int32_t>(i));
        continue;
      }
      std::string& spelling = result.spellings_[i];
      RETURN_IF_ERROR(normalizer.Apply(&spelling));
      result.normalized_.Insert(spelling, static_cast<int32_t>(i));
      result.any_normalized_ = true;
    }
  }
  return result;
}

void AddedTokens::Split(std::string_view text, bool normalized, bool parse_special,
                        std::vector<Segment>* segments) const {
  const Trie& trie = normalized ? normalized_ : raw_;
  size_t done = 0;
  for (size_t at = trie.SkipTo(text, 0); at < text.size(); at = trie.SkipTo(text, at)) {
    size_t length = 0;
    const int32_t index = trie.Longest(text, at, &length);
    if (index < 0) {
      ++at;
      continue;
    }
    const AddedTokenSpec& token = tokens_[static_cast<size_t>(index)];
    size_t begin = at, end = at + length;
    at = end;
    if (token.special && !parse_special) continue;
    if (token.single_word &&
        (EndsWithWord(text.substr(0, begin)) || StartsWithWord(text.substr(end)))) {
      continue;
    }
    while (token.lstrip && begin > done) {
      size_t left = begin;
      if (!IsWhiteSpace(DecodeUtf8Backward(text, &left))) break;
      begin = left;
    }
    while (token.rstrip && end < text.size()) {
      size_t right = end;
      if (!IsWhiteSpace(DecodeUtf8(text, &right))) break;
      end = right;
    }
    // A token that itself starts with white space may lie in what the one before has swallowed.
    if (done < begin) segments->push_back({done, begin, -1});
    segments->push_back({begin, end, token.id});
    done = end;
  }
  if (done < text.size()) segments->push_back({done, text.size(), -1});
}

const AddedTokenSpec* AddedTokens::Find(int32_t id) const {
  auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : &tokens_[static_cast<size_t>(it->second)];
}

const std::string* AddedTokens::Spelling(int32_t id) const {
  auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : &spellings_[static_cast<size_t>(it->second)];
}

const AddedTokenSpec* AddedTokens::Find(std::string_view content) const {
  auto it = by_content_.find(content);
  return it == by_content_.end() ? nullptr : &tokens_[static_cast<size_t>(it->second)];
}

}  // namespace switchyard::worker::tokenizer
