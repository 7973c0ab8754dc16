#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

namespace switchyard::worker::tokenizer {

// Hashes std::string_view: Debian's Abseil hashes only its own type of view.
struct ViewHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};

// Tokens and ids, one to one. Ids may have gaps.
class Vocabulary {
 public:
  Vocabulary() = default;
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;
  Vocabulary(const Vocabulary&) = delete;  // ids_ points into tokens_
  Vocabulary& operator=(const Vocabulary&) = delete;

  // INVALID_ARGUMENT if an id stands for two tokens, or a token has two ids.
  static absl::StatusOr<Vocabulary> Make(std::vector<std::pair<std::string, int32_t>> tokens);

  std::optional<int32_t> Find(std::string_view token) const {
    auto it = ids_.find(token);
    return it == ids_.end() ? std::nullopt : std::optional<int32_t>(it->second);
  }

  // Null if no token has this id.
  const std::string* Token(int32_t id) const {
    if (id < 0 || static_cast<size_t>(id) >= by_id_.size()) return nullptr;
    const int32_t index = by_id_[static_cast<size_t>(id)];
    return index < 0 ? nullptr : &tokens_[static_cast<size_t>(index)].first;
  }

  int32_t size() const { return static_cast<int32_t>(by_id_.size()); }  // the largest id + 1
  size_t longest_token() const { return longest_; }                     // in bytes
  const std::vector<std::pair<std::string, int32_t>>& tokens() const { return tokens_; }

 private:
  std::vector<std::pair<std::string, int32_t>> tokens_;
  std::vector<int32_t> by_id_;  // index into tokens_, or -1
  absl::flat_hash_map<std::string_view, int32_t, ViewHash, std::equal_to<>> ids_;
  size_t longest_ = 0;
};

}  // namespace switchyard::worker::tokenizer
