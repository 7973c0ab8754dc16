#pragma once

#include <bitset>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "worker/tokenizer/spec.h"
#include "worker/tokenizer/vocabulary.h"

namespace switchyard::worker::tokenizer {

// Memory that merging reuses from word to word. One per thread.
struct BpeScratch {
  std::vector<int32_t> ids;
  std::vector<uint32_t> ranks, next, previous;
  std::vector<uint64_t> heap;
};

// Byte-pair encoding: a word starts as one symbol a character, and the neighbours whose pair has
// the highest priority are merged, the leftmost first, until none can be. Const methods may be
// called from many threads.
class Bpe {
 public:
  // INVALID_ARGUMENT for a vocabulary that is not one to one, or a merge that names an unknown
  // token.
  static absl::StatusOr<Bpe> Make(BpeSpec spec);

  // Appends the ids of one word (valid UTF-8, not empty). Characters that are not in the vocabulary
  // become byte tokens, else the unknown token, else nothing. INVALID_ARGUMENT if the unknown token
  // is needed and is not in the vocabulary.
  absl::Status Encode(std::string_view word, BpeScratch* scratch, std::vector<int32_t>* ids) const;

  // True if no merge can ever join what ends with `left` to what starts with `right`, so that a
  // word may be cut between them without any difference. Exact where both are known characters.
  bool NeverJoined(char32_t left, char32_t right) const {
    if (left < 128 && right < 128) return never_joined_ascii_[left * 128 + right];
    return CharacterId(left) >= 0 && CharacterId(right) >= 0 &&
           !joined_.contains(uint64_t{left} << 32 | right);
  }
  // With ignore_merges a word that is a token is not merged at all, so its parts are no words.
  bool may_cut() const { return !ignore_merges_; }

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  struct Merge {
    uint32_t rank;
    int32_t id;
  };
  static constexpr uint32_t kNoMerge = UINT32_MAX;

  int32_t CharacterId(char32_t c) const {
    if (c < kDirect) return direct_[c];
    auto it = characters_.find(c);
    return it == characters_.end() ? -1 : it->second;
  }
  const Merge* FindMerge(int32_t left, int32_t right) const {
    auto it = merges_.find(static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right));
    return it == merges_.end() ? nullptr : &it->second;
  }
  uint32_t Rank(int32_t left, int32_t right) const {
    const Merge* merge = FindMerge(left, right);
    return merge == nullptr ? kNoMerge : merge->rank;
  }
  absl::Status Symbols(std::string_view word, std::vector<int32_t>* ids) const;
  absl::Status AddMerges(const std::vector<std::pair<std::string, std::string>>& merges);
  void FindJoined(const std::vector<std::pair<std::string, std::string>>& merges);
  void MergeShort(BpeScratch* scratch) const;
  void MergeLong(BpeScratch* scratch) const;

  static constexpr char32_t kDirect = 0x250;  // ASCII, and all of the byte-level alphabet

  Vocabulary vocabulary_;
  absl::flat_hash_map<uint64_t, Merge> merges_;        // by left id << 32 | right id
  int32_t direct_[kDirect];                            // id of a character below kDirect, or -1
  absl::flat_hash_map<char32_t, int32_t> characters_;  // of the others
  int32_t byte_ids_[256];                              // <0x00> to <0xFF>, or -1
  absl::flat_hash_set<uint64_t> joined_;  // left character << 32 | right: some merge joins them
  std::bitset<128 * 128> never_joined_ascii_;
  bool has_unk_ = false;
  int32_t unk_id_ = -1;
  bool fuse_unk_ = false, byte_fallback_ = false, ignore_merges_ = false;
};

}  // namespace switchyard::worker::tokenizer
