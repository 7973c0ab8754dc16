#include "worker/tokenizer/bpe.h"

#include <algorithm>
#include <functional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/status_macros.h"
#include "worker/tokenizer/utf8.h"

namespace switchyard::worker::tokenizer {
namespace {

// Up to this many symbols, looking at every pair for each merge beats keeping a heap.
constexpr size_t kShortWord = 48;

}  // namespace

absl::StatusOr<Bpe> Bpe::Make(BpeSpec spec) {
  Bpe bpe;
  ASSIGN_OR_RETURN(bpe.vocabulary_, Vocabulary::Make(std::move(spec.vocab)));
  bpe.fuse_unk_ = spec.fuse_unk;
  bpe.byte_fallback_ = spec.byte_fallback;
  bpe.ignore_merges_ = spec.ignore_merges;
  bpe.has_unk_ = !spec.unk_token.empty();
  bpe.unk_id_ = bpe.vocabulary_.Find(spec.unk_token).value_or(-1);
  for (int byte = 0; byte < 256; ++byte) {
    bpe.byte_ids_[byte] = bpe.vocabulary_.Find(absl::StrFormat("<0x%02X>", byte)).value_or(-1);
  }
  std::fill(std::begin(bpe.direct_), std::end(bpe.direct_), -1);
  for (const auto& [token, id] : bpe.vocabulary_.tokens()) {
    if (token.empty() || token.size() > 4) continue;
    size_t end = 0;
    const char32_t c = DecodeUtf8(token, &end);
    if (end != token.size()) continue;
    if (c < kDirect) {
      bpe.direct_[c] = id;
    } else {
      bpe.characters_[c] = id;
    }
  }
  RETURN_IF_ERROR(bpe.AddMerges(spec.merges));
  bpe.FindJoined(spec.merges);
  return bpe;
}

absl::Status Bpe::AddMerges(const std::vector<std::pair<std::string, std::string>>& merges) {
  merges_.reserve(merges.size());
  std::string joined;
  for (size_t i = 0; i < merges.size(); ++i) {
    const std::string& left = merges[i].first;
    const std::string& right = merges[i].second;
    auto unknown = [&](const std::string& token) {
      return absl::InvalidArgumentError(absl::StrCat("model.merges[", i, "] (\"", left, "\", \"",
                                                     right, "\"): \"", token,
                                                     "\" is not in the vocabulary"));
    };
    const std::optional<int32_t> left_id = vocabulary_.Find(left);
    if (!left_id) return unknown(left);
    const std::optional<int32_t> right_id = vocabulary_.Find(right);
    if (!right_id) return unknown(right);
    joined.assign(left).append(right);
    const std::optional<int32_t> id = vocabulary_.Find(joined);
    if (!id) return unknown(joined);
    merges_[static_cast<uint64_t>(*left_id) << 32 | static_cast<uint32_t>(*right_id)] = {
        static_cast<uint32_t>(i), *id};
  }
  return absl::OkStatus();
}

void Bpe::FindJoined(const std::vector<std::pair<std::string, std::string>>& merges) {
  for (const auto& [left, right] : merges) {
    if (left.empty() || right.empty()) continue;
    size_t end = left.size(), begin = 0;
    const char32_t last = DecodeUtf8Backward(left, &end);
    joined_.insert(uint64_t{last} << 32 | DecodeUtf8(right, &begin));
  }
  for (char32_t left = 0; left < 128; ++left) {
    for (char32_t right = 0; right < 128; ++right) {
      never_joined_ascii_[left * 128 + right] = direct_[left] >= 0 && direct_[right] >= 0 &&
                                                !joined_.contains(uint64_t{left} << 32 | right);
    }
  }
}

// The symbols that a word starts as.
absl::Status Bpe::Symbols(std::string_view word, std::vector<int32_t>* ids) const {
  bool pending_unk = false;  // an unknown token that later unknown characters may still join
  for (size_t pos = 0; pos < word.size();) {
    const size_t begin = pos;
    const int32_t id = CharacterId(DecodeUtf8(word, &pos));
    if (id >= 0) {
      if (pending_unk) ids->push_back(unk_id_);
      pending_unk = false;
      ids->push_back(id);
      continue;
    }
    if (byte_fallback_) {
      const std::string_view bytes = word.substr(begin, pos - begin);
      const bool all = std::all_of(bytes.begin(), bytes.end(), [&](char byte) {
        return byte_ids_[static_cast<uint8_t>(byte)] >= 0;
      });
      if (all) {
        for (char byte : bytes) ids->push_back(byte_ids_[static_cast<uint8_t>(byte)]);
        continue;
      }
    }
    if (!has_unk_) continue;
    if (unk_id_ < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("the text has a character that the vocabulary lacks (\"",
                       std::string(word.substr(begin, pos - begin)),
                       "\"), and the unknown token is not in the vocabulary either"));
    }
    if (pending_unk && !fuse_unk_) ids->push_back(unk_id_);
    pending_unk = true;
  }
  if (pending_unk) ids->push_back(unk_id_);
  return absl::OkStatus();
}

absl::Status Bpe::Encode(std::string_view word, BpeScratch* scratch,
                         std::vector<int32_t>* ids) const {
  if (ignore_merges_ && word.size() <= vocabulary_.longest_token()) {
    if (std::optional<int32_t> id = vocabulary_.Find(word)) {
      ids->push_back(*id);
      return absl::OkStatus();
    }
  }
  scratch->ids.clear();
  RETURN_IF_ERROR(Symbols(word, &scratch->ids));
  if (scratch->ids.size() <= kShortWord) {
    MergeShort(scratch);
  } else {
    MergeLong(scratch);
  }
  ids->insert(ids->end(), scratch->ids.begin(), scratch->ids.end());
  return absl::OkStatus();
}

void Bpe::MergeShort(BpeScratch* scratch) const {
  std::vector<int32_t>& ids = scratch->ids;
  size_t n = ids.size();
  uint32_t ranks[kShortWord];  // of the pair (i, i + 1)
  for (size_t i = 0; i + 1 < n; ++i) ranks[i] = Rank(ids[i], ids[i + 1]);
  while (n > 1) {
    const size_t best = static_cast<size_t>(std::min_element(ranks, ranks + n - 1) - ranks);
    if (ranks[best] == kNoMerge) break;
    ids[best] = FindMerge(ids[best], ids[best + 1])->id;
    for (size_t i = best + 1; i + 1 < n; ++i) ids[i] = ids[i + 1];
    for (size_t i = best + 1; i + 2 < n; ++i) ranks[i] = ranks[i + 1];
    --n;
    if (best + 1 < n) ranks[best] = Rank(ids[best], ids[best + 1]);
    if (best > 0) ranks[best - 1] = Rank(ids[best - 1], ids[best]);
  }
  ids.resize(n);
}

// Symbols in a linked list; pairs in a heap, by rank and then by place. An entry is stale when the
// pair at its place has another rank by now.
void Bpe::MergeLong(BpeScratch* scratch) const {
  std::vector<int32_t>& ids = scratch->ids;
  std::vector<uint32_t>&ranks = scratch->ranks, &next = scratch->next,
  &previous = scratch->previous;
  std::vector<uint64_t>& heap = scratch->heap;
  const auto n = static_cast<uint32_t>(ids.size());
  const uint32_t none = n;
  ranks.assign(n, kNoMerge);
  next.resize(n);
  previous.resize(n);
  heap.clear();
  for (uint32_t i = 0; i < n; ++i) {
    next[i] = i + 1;
    previous[i] = i == 0 ? none : i - 1;
    if (i + 1 == n) break;
    ranks[i] = Rank(ids[i], ids[i + 1]);
    if (ranks[i] != kNoMerge) heap.push_back(uint64_t{ranks[i]} << 32 | i);
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());
  auto update = [&](uint32_t at) {
    ranks[at] = next[at] == none ? kNoMerge : Rank(ids[at], ids[next[at]]);
    if (ranks[at] == kNoMerge) return;
    heap.push_back(uint64_t{ranks[at]} << 32 | at);
    std::push_heap(heap.begin(), heap.end(), std::greater<>());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const auto rank = static_cast<uint32_t>(heap.back() >> 32);
    const auto at = static_cast<uint32_t>(heap.back());
    heap.pop_back();
    if (ranks[at] != rank) continue;
    const uint32_t right = next[at];
    ids[at] = FindMerge(ids[at], ids[right])->id;
    ranks[right] = kNoMerge;
    next[at] = next[right];
    if (next[at] != none) previous[next[at]] = at;
    update(at);
    if (previous[at] != none) update(previous[at]);
  }
  uint32_t kept = 0;
  for (uint32_t i = 0; i < n; i = next[i]) ids[kept++] = ids[i];
  ids.resize(kept);
}

}  // namespace switchyard::worker::tokenizer
