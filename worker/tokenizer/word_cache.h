#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

namespace switchyard::worker::tokenizer {

// Remembers the ids of short words. Direct-mapped and of fixed size: a word pushes out the one that
// was in its place, so hostile text costs misses and never memory. One thread at a time.
class WordCache {
 public:
  static constexpr size_t kMaxBytes = 30;
  static constexpr size_t kMaxIds = 8;

  WordCache() : slots_(kSlots) {}

  // The word's ids, or an empty span if they are not known (a word has at least one id, or is not
  // kept). `*hash` is for a later Put of the same word.
  std::span<const int32_t> Get(std::string_view word, uint64_t* hash) const {
    *hash = Hash(word);
    const Slot& slot = slots_[*hash % kSlots];
    if (slot.bytes != word.size() || std::memcmp(slot.word, word.data(), word.size()) != 0) {
      return {};
    }
    return {slot.ids, slot.count};
  }

  void Put(std::string_view word, uint64_t hash, std::span<const int32_t> ids) {
    if (word.size() > kMaxBytes || ids.empty() || ids.size() > kMaxIds) return;
    Slot& slot = slots_[hash % kSlots];
    slot.bytes = static_cast<uint8_t>(word.size());
    slot.count = static_cast<uint8_t>(ids.size());
    std::memcpy(slot.word, word.data(), word.size());
    std::memcpy(slot.ids, ids.data(), ids.size_bytes());
  }

 private:
  static constexpr size_t kSlots = 1 << 14;  // 1 MiB
  struct alignas(64) Slot {
    uint8_t bytes = 0;  // 0: empty
    uint8_t count = 0;
    char word[kMaxBytes];
    int32_t ids[kMaxIds];
  };
  static_assert(sizeof(Slot) == 64, "a slot is one cache line");

  static uint64_t Hash(std::string_view word) { return std::hash<std::string_view>()(word); }

  std::vector<Slot> slots_;
};

}  // namespace switchyard::worker::tokenizer
