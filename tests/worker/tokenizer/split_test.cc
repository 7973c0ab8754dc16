// Pre-tokenizers and added tokens: where text is cut.
#include <gtest/gtest.h>

#include "tests/worker/tokenizer/support.h"

namespace switchyard::worker {
namespace {

std::string Pieces(const nlohmann::json& pre_tokenizer, std::string_view text) {
  nlohmann::json document = BytesOnly();
  document["pre_tokenizer"] = MarkPieces(pre_tokenizer);
  return Normalized(*MakeTokenizer(document), text);
}

nlohmann::json Split(const std::string& regex, const std::string& behavior, bool invert = false) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", regex}}},
          {"behavior", behavior},
          {"invert", invert}};
}

TEST(Split, Behaviors) {
  EXPECT_EQ(Pieces(Split("-", "Removed"), "a--b-"), "|a|b");
  EXPECT_EQ(Pieces(Split("-", "Isolated"), "a--b-"), "|a|-|-|b|-");
  EXPECT_EQ(Pieces(Split("-", "Contiguous"), "a--b-"), "|a|--|b|-");
  EXPECT_EQ(Pieces(Split("-", "MergedWithPrevious"), "a--b-"), "|a-|-|b-");
  EXPECT_EQ(Pieces(Split("-", "MergedWithNext"), "a--b-"), "|a|-|-b|-");
  EXPECT_EQ(Pieces(Split("[a-z]+", "Removed", true), "a--b-"), "|a|b");
  EXPECT_EQ(Pieces(Split("x*", "Isolated"), "abxxc"), "|a|b|xx|c");
}

TEST(PreTokenizer, Others) {
  EXPECT_EQ(Pieces({{"type", "Digits"}, {"individual_digits", true}}, "a12½"), "|a|1|2|½");
  EXPECT_EQ(Pieces({{"type", "Digits"}, {"individual_digits", false}}, "a12b"), "|a|12|b");
  EXPECT_EQ(Pieces({{"type", "Whitespace"}}, "it's 5.0"), "|it|'|s|5|.|0");
  EXPECT_EQ(Pieces({{"type", "WhitespaceSplit"}}, " it's\u3000so "), "|it's|so");
  EXPECT_EQ(Pieces({{"type", "Punctuation"}}, "a,,b"), "|a|,|,|b");
  EXPECT_EQ(Pieces({{"type", "Punctuation"}, {"behavior", "Contiguous"}}, "a,,b"), "|a|,,|b");
}

TEST(PreTokenizer, MetaspaceSchemes) {
  auto encode = [](const nlohmann::json& metaspace, std::string_view text) {
    nlohmann::json document = BytesOnly();
    document["pre_tokenizer"] = metaspace;
    document["model"]["vocab"]["#"] = 256;
    document["added_tokens"] = {{{"id", 256}, {"content", "#"}, {"special", true}}};
    auto tokenizer = MakeTokenizer(document);
    std::string out;
    auto ids = tokenizer->Encode(text);
    for (int32_t id : *ids) out += id == 256 ? '#' : static_cast<char>(id);
    return out;
  };
  nlohmann::json metaspace = {{"type", "Metaspace"}, {"replacement", "_"}, {"split", false}};
  EXPECT_EQ(encode(metaspace, "a b#c"), "_a_b#_c");
  metaspace["prepend_scheme"] = "first";
  EXPECT_EQ(encode(metaspace, "a b#c"), "_a_b#c");
  EXPECT_EQ(encode(metaspace, "#c"), "#c");
  metaspace["prepend_scheme"] = "never";
  EXPECT_EQ(encode(metaspace, "a b#c"), "a_b#c");
  const nlohmann::json old = {
      {"type", "Metaspace"}, {"replacement", "_"}, {"add_prefix_space", false}};
  EXPECT_EQ(encode(old, "a b"), "a_b");
}

TEST(AddedTokens, Flags) {
  nlohmann::json document = BytesOnly();
  document["added_tokens"] = nlohmann::json::array();
  int32_t next = 256;
  auto add = [&](const std::string& content, const std::vector<std::string>& flags) {
    nlohmann::json token = {
        {"id", next++}, {"content", content}, {"special", false}, {"normalized", false}};
    for (const std::string& flag : flags) token[flag] = true;
    document["added_tokens"].push_back(token);
  };
  add("<l>", {"lstrip"});
  add("<r>", {"rstrip"});
  add("w", {"single_word"});
  add("<l>x", {"special"});
  document["model"]["vocab"]["unused"] = 300;
  auto tokenizer = MakeTokenizer(document);
  using Ids = std::vector<int32_t>;
  EXPECT_EQ(*tokenizer->Encode("a  <l>b"), (Ids{'a', 256, 'b'}));
  EXPECT_EQ(*tokenizer->Encode("a <r> \n b"), (Ids{'a', ' ', 257, 'b'}));
  EXPECT_EQ(*tokenizer->Encode("w ww w"), (Ids{258, ' ', 'w', 'w', ' ', 258}));
  EXPECT_EQ(*tokenizer->Encode("<l>x"), (Ids{259}));  // the longest at the leftmost place
  EXPECT_EQ(*tokenizer->Encode("<l>x", {.parse_special = false}), (Ids{'<', 'l', '>', 'x'}));
  EXPECT_EQ(tokenizer->vocab_size(), 301);
  EXPECT_EQ(tokenizer->TokenToId("<r>"), 257);
  EXPECT_EQ(tokenizer->TokenToId("nobody"), std::nullopt);
  EXPECT_EQ(tokenizer->IdToToken(257), "<r>");
  EXPECT_EQ(tokenizer->IdToToken(280), std::nullopt);
  EXPECT_TRUE(tokenizer->IsSpecial(259));
  EXPECT_FALSE(tokenizer->IsSpecial(256) || tokenizer->IsSpecial(-1) ||
               tokenizer->IsSpecial(1 << 30));
}

}  // namespace
}  // namespace switchyard::worker
