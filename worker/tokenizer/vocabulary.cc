#include "worker/tokenizer/vocabulary.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "worker/tokenizer/spec.h"

namespace switchyard::worker::tokenizer {

absl::StatusOr<Vocabulary> Vocabulary::Make(std::vector<std::pair<std::string, int32_t>> tokens) {
  Vocabulary v;
  v.tokens_ = std::move(tokens);
  v.ids_.reserve(v.tokens_.size());
  int32_t largest = -1;
  for (const auto& [token, id] : v.tokens_) {
    if (id < 0 || id > kMaxTokenId) {
      return absl::InvalidArgumentError(absl::StrCat("token \"", token, "\" has id ", id,
                                                     ", which is not in [0, ", kMaxTokenId, "]"));
    }
    largest = std::max(largest, id);
  }
  v.by_id_.assign(static_cast<size_t>(largest + 1), -1);
  for (size_t i = 0; i < v.tokens_.size(); ++i) {
    const auto& [token, id] = v.tokens_[i];
    int32_t& slot = v.by_id_[static_cast<size_t>(id)];
    if (slot >= 0) {
      return absl::InvalidArgumentError(absl::StrCat("tokens \"",
                                                     v.tokens_[static_cast<size_t>(slot)].first,
                                                     "\" and \"", token, "\" both have id ", id));
    }
    slot = static_cast<int32_t>(i);
    if (!v.ids_.emplace(std::string_view(token), id).second) {
      return absl::InvalidArgumentError(absl::StrCat("token \"", token, "\" has two ids"));
    }
    v.longest_ = std::max(v.longest_, token.size());
  }
  return v;
}

}  // namespace switchyard::worker::tokenizer
