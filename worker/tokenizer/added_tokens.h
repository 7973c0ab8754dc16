#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "worker/tokenizer/normalizer.h"
#include "worker/tokenizer/spec.h"
#include "worker/tokenizer/vocabulary.h"

namespace switchyard::worker::tokenizer {

// A set of strings, and the longest of them that starts at a place in a text.
class Trie {
 public:
  void Insert(std::string_view key, int32_t value);  // the first value of a key stays
  // The value of the longest key that `text` starts with at `at`, and its length; -1 if none.
  int32_t Longest(std::string_view text, size_t at, size_t* length) const;
  // The first place at or after `at` where any key can start, or the end.
  size_t SkipTo(std::string_view text, size_t at) const {
    while (at < text.size() && !starts_[static_cast<uint8_t>(text[at])]) ++at;
    return at;
  }

 private:
  std::array<bool, 256> starts_ = {};
  std::vector<int32_t> values_ = {-1};             // by node; node 0 is the root
  absl::flat_hash_map<uint64_t, uint32_t> edges_;  // node << 8 | byte
};

// A stretch of text, or an added token that was found there.
struct Segment {
  size_t begin, end;
  int32_t id;  // -1: text
};

// The tokens that are looked for in the text before anything else is done with it. Const methods
// may be called from many threads.
class AddedTokens {
 public:
  // INVALID_ARGUMENT if a token contradicts the vocabulary or another added token.
  static absl::StatusOr<AddedTokens> Make(std::vector<AddedTokenSpec> tokens,
                                          const Vocabulary& vocabulary,
                                          const Normalizer& normalizer);

  // Cuts text at the added tokens: at those that are to be found before normalization, or at the
  // others. Without `parse_special`, special tokens are left as text.
  void Split(std::string_view text, bool normalized, bool parse_special,
             std::vector<Segment>* segments) const;

  // Null if there is none.
  const AddedTokenSpec* Find(int32_t id) const;
  const AddedTokenSpec* Find(std::string_view content) const;
  // What decoding writes for the token, or null: a normalized token in its normalized spelling.
  const std::string* Spelling(int32_t id) const;
  bool IsSpecial(int32_t id) const {
    const AddedTokenSpec* token = Find(id);
    return token != nullptr && token->special;
  }

  int32_t size() const { return size_; }  // the largest id + 1
  bool any_normalized() const { return any_normalized_; }

 private:
  std::vector<AddedTokenSpec> tokens_;
  std::vector<std::string> spellings_;  // by index, like tokens_
  Trie raw_, normalized_;               // values are indices into tokens_
  absl::flat_hash_map<int32_t, int32_t> by_id_;
  absl::flat_hash_map<std::string, int32_t, ViewHash, std::equal_to<>> by_content_;
  int32_t size_ = 0;
  bool any_normalized_ = false;
};

}  // namespace switchyard::worker::tokenizer
