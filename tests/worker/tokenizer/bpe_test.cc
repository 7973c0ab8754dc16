#include "worker/tokenizer/bpe.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <thread>

#include "tests/worker/tokenizer/support.h"

namespace switchyard::worker::tokenizer {
namespace {

// Merging as its definition says: the pair of highest priority, the leftmost of its places, again
// and again. Quadratic, and plain.
std::vector<std::string> MergePlainly(const BpeSpec& spec, std::string_view word) {
  std::map<std::pair<std::string, std::string>, size_t> ranks;
  for (size_t i = 0; i < spec.merges.size(); ++i) ranks[spec.merges[i]] = i;
  std::vector<std::string> symbols;
  for (char c : word) symbols.emplace_back(1, c);
  while (true) {
    size_t best = SIZE_MAX, at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      auto it = ranks.find({symbols[i], symbols[i + 1]});
      if (it != ranks.end() && it->second < best) best = it->second, at = i;
    }
    if (best == SIZE_MAX) return symbols;
    symbols[at] += symbols[at + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

BpeSpec RandomSpec(std::mt19937* random, size_t merges) {
  BpeSpec spec;
  std::vector<std::string> tokens = {"a", "b", "c", "d", "e"};
  std::map<std::string, int32_t> ids;
  for (size_t i = 0; i < tokens.size(); ++i) ids[tokens[i]] = static_cast<int32_t>(i);
  std::map<std::pair<std::string, std::string>, bool> seen;
  while (spec.merges.size() < merges) {
    const std::string left = tokens[(*random)() % tokens.size()];
    const std::string right = tokens[(*random)() % tokens.size()];
    if (left.size() + right.size() > 9 || !seen.emplace(std::pair(left, right), true).second) {
      if ((*random)() % 100 == 0) break;
      continue;
    }
    spec.merges.emplace_back(left, right);
    if (ids.emplace(left + right, static_cast<int32_t>(ids.size())).second) {
      tokens.push_back(left + right);
    }
  }
  spec.vocab.assign(ids.begin(), ids.end());
  return spec;
}

TEST(Bpe, MergesAsTheDefinitionSays) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    const BpeSpec spec = RandomSpec(&random, 1 + random() % 40);
    auto bpe = Bpe::Make(spec);
    ASSERT_TRUE(bpe.ok()) << bpe.status();
    BpeScratch scratch;
    for (size_t length : {1, 2, 5, 30, 48, 49, 100, 300}) {
      std::string word;
      for (size_t i = 0; i < length; ++i) word += static_cast<char>('a' + random() % 5);
      std::vector<int32_t> ids;
      ASSERT_TRUE(bpe->Encode(word, &scratch, &ids).ok());
      std::vector<std::string> got;
      for (int32_t id : ids) got.push_back(*bpe->vocabulary().Token(id));
      ASSERT_EQ(got, MergePlainly(spec, word)) << word;
    }
  }
}

TEST(Bpe, NeverJoinedIsExact) {
  std::mt19937 random(8);
  for (int round = 0; round < 200; ++round) {
    const BpeSpec spec = RandomSpec(&random, 1 + random() % 6);
    auto bpe = Bpe::Make(spec);
    ASSERT_TRUE(bpe.ok());
    BpeScratch scratch;
    std::string word;
    for (int i = 0; i < 60; ++i) word += static_cast<char>('a' + random() % 5);
    std::vector<int32_t> whole, cut;
    ASSERT_TRUE(bpe->Encode(word, &scratch, &whole).ok());
    size_t begin = 0;
    for (size_t i = 1; i <= word.size(); ++i) {
      if (i < word.size() &&
          !bpe->NeverJoined(static_cast<char32_t>(word[i - 1]), static_cast<char32_t>(word[i])))
        continue;
      ASSERT_TRUE(bpe->Encode(word.substr(begin, i - begin), &scratch, &cut).ok());
      begin = i;
    }
    ASSERT_EQ(whole, cut) << word;
  }
}

TEST(Bpe, UnknownCharacters) {
  BpeSpec spec;
  spec.vocab = {{"a", 0}, {"?", 1}, {"<0xC3>", 2}, {"<0xA9>", 3}};
  spec.unk_token = "?";
  spec.byte_fallback = true;
  auto encode = [&](std::string_view text) {
    auto bpe = Bpe::Make(spec);
    BpeScratch scratch;
    std::vector<int32_t> ids;
    EXPECT_TRUE(bpe->Encode(text, &scratch, &ids).ok());
    return ids;
  };
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(encode("aéa"), (Ids{0, 2, 3, 0}));
  EXPECT_EQ(encode("axya"), (Ids{0, 1, 1, 0}));
  spec.fuse_unk = true;
  EXPECT_EQ(encode("axya"), (Ids{0, 1, 0}));
  spec.unk_token = "";
  EXPECT_EQ(encode("axya"), (Ids{0, 0}));
  spec.unk_token = "missing";
  auto bpe = Bpe::Make(spec);
  BpeScratch scratch;
  std::vector<int32_t> ids;
  EXPECT_FALSE(bpe->Encode("x", &scratch, &ids).ok());
}

TEST(Tokenizer, ManyThreadsAgree) {
  auto tokenizer = Tokenizer::Load(GoldenDir() + "/llama3/tokenizer.json");
  ASSERT_TRUE(tokenizer.ok());
  std::string text;
  std::mt19937 random(9);
  for (int i = 0; i < 5000; ++i) text += static_cast<char>(' ' + random() % 90);
  const auto want = *(*tokenizer)->Encode(text);
  std::vector<std::thread> threads;
  std::vector<int> wrong(6);
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 30; ++i) wrong[t] += *(*tokenizer)->Encode(text) != want;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int w : wrong) EXPECT_EQ(w, 0);
}

}  // namespace
}  // namespace switchyard::worker::tokenizer
