// A tokenizer.json is not trusted: whatever it holds, the answer is a tokenizer or a clear error.
#include <gtest/gtest.h>

#include <random>

#include "tests/worker/tokenizer/support.h"

namespace switchyard::worker {
namespace {

std::string ErrorOfText(const std::string& text) {
  auto tokenizer = Tokenizer::Parse(text, "tokenizer.json");
  if (tokenizer.ok()) return "";
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(tokenizer.status().message());
}

std::string ErrorOf(const nlohmann::json& document) { return ErrorOfText(document.dump()); }

nlohmann::json With(const char* pointer, const nlohmann::json& value) {
  nlohmann::json document = BytesOnly();
  document[nlohmann::json::json_pointer(pointer)] = value;
  return document;
}

TEST(BadJson, UnknownComponentsAreRefusedByName) {
  const nlohmann::json foo = {{"type", "Foo"}};
  EXPECT_EQ(ErrorOf(With("/pre_tokenizer", foo)),
            "tokenizer.json: pre_tokenizer type \"Foo\" is not supported");
  EXPECT_EQ(ErrorOf(With("/normalizer", foo)),
            "tokenizer.json: normalizer type \"Foo\" is not supported");
  EXPECT_EQ(ErrorOf(With("/decoder", foo)),
            "tokenizer.json: decoder type \"Foo\" is not supported");
  EXPECT_EQ(ErrorOf(With("/post_processor", foo)),
            "tokenizer.json: post_processor type \"Foo\" is not supported");
  EXPECT_EQ(ErrorOf(With("/model/type", "Unigram")),
            "tokenizer.json: model type \"Unigram\" is not supported");
  EXPECT_EQ(ErrorOf(With("/normalizer", {{"type", "Sequence"},
                                         {"normalizers", {{{"type", "NFC"}}, {{"type", "Nmt"}}}}})),
            "tokenizer.json: normalizer.normalizers[1] type \"Nmt\" is not supported");
  EXPECT_EQ(ErrorOf(With("/normalizer", {{"type", "Precompiled"}, {"precompiled_charsmap", ""}})),
            "tokenizer.json: normalizer type \"Precompiled\" is not supported");
}

TEST(BadJson, WrongValuesAreNamed) {
  EXPECT_EQ(ErrorOfText("{"), "tokenizer.json: not valid JSON");
  EXPECT_EQ(ErrorOfText("[]"), "tokenizer.json: must be a JSON object");
  EXPECT_EQ(ErrorOfText("{}"), "tokenizer.json: model is missing");
  EXPECT_EQ(ErrorOf(With("/model/vocab", 3)),
            "tokenizer.json: model.vocab must be an object and is 3");
  EXPECT_EQ(ErrorOf(With("/model/vocab/x", -1)),
            "tokenizer.json: model.vocab token \"x\": its id must be a whole number in [0, "
            "16777215] and is -1");
  EXPECT_EQ(ErrorOf(With("/model/vocab/x", 7)),
            "tokenizer.json: model: tokens \"<0x07>\" and \"x\" both have id 7");
  EXPECT_EQ(
      ErrorOf(With("/model/merges", {"a b"})),
      "tokenizer.json: model: model.merges[0] (\"a\", \"b\"): \"a\" is not in the vocabulary");
  EXPECT_EQ(ErrorOf(With("/model/merges", {"a b c"})),
            "tokenizer.json: model.merges[0] must be \"a b\" or [\"a\", \"b\"]");
  EXPECT_EQ(ErrorOf(With("/model/continuing_subword_prefix", "##")),
            "tokenizer.json: model continuing_subword_prefix \"##\" is not supported");
  EXPECT_EQ(ErrorOf(With("/model/dropout", 0.1)),
            "tokenizer.json: model.dropout is set, which is not supported");
  EXPECT_EQ(ErrorOf(With("/model/byte_fallback", "yes")),
            "tokenizer.json: model.byte_fallback must be true or false and is \"yes\"");
  EXPECT_EQ(
      ErrorOf(With("/decoder", {{"type", "Strip"}, {"content", "ab"}, {"start", 1}, {"stop", 0}})),
      "tokenizer.json: decoder content must be one character and is \"ab\"");
  EXPECT_EQ(ErrorOf(With("/decoder",
                         {{"type", "Strip"}, {"content", " "}, {"start", 1e30}, {"stop", 0}})),
            "tokenizer.json: decoder.start must be a whole number in [0, 1048576] and is 1e+30");
  EXPECT_EQ(ErrorOf(With(
                "/pre_tokenizer",
                {{"type", "Split"}, {"pattern", {{"Regex", "[a[b]]"}}}, {"behavior", "Isolated"}})),
            "tokenizer.json: pre_tokenizer: pattern \"[a[b]]\": \"[ in a character class\" is not "
            "supported");
  EXPECT_EQ(ErrorOf(With("/pre_tokenizer",
                         {{"type", "Split"}, {"pattern", {{"Regex", "a"}}}, {"behavior", "Odd"}})),
            "tokenizer.json: pre_tokenizer behavior \"Odd\" is not supported");
}

TEST(BadJson, AddedTokens) {
  auto with_tokens = [](const nlohmann::json& tokens) { return With("/added_tokens", tokens); };
  EXPECT_EQ(ErrorOf(with_tokens({{{"id", 9}, {"content", "x"}}})),
            "tokenizer.json: added_tokens: added token \"x\" with id 9 takes the id of the model's "
            "token \"<0x09>\"");
  EXPECT_EQ(
      ErrorOf(with_tokens({{{"id", 300}, {"content", "<0x09>"}}})),
      "tokenizer.json: added_tokens: added token \"<0x09>\" with id 300 has id 9 in the model");
  EXPECT_EQ(
      ErrorOf(with_tokens({{{"id", 300}, {"content", "x"}}, {{"id", 300}, {"content", "y"}}})),
      "tokenizer.json: added_tokens: added token \"y\" with id 300 has the id of another added "
      "token");
  EXPECT_EQ(
      ErrorOf(with_tokens({{{"id", 300}, {"content", "x"}}, {{"id", 301}, {"content", "x"}}})),
      "tokenizer.json: added_tokens: added token \"x\" with id 301 stands twice among the added "
      "tokens");
  EXPECT_EQ(ErrorOf(with_tokens({{{"id", 1ll << 40}, {"content", "x"}}})),
            "tokenizer.json: added_tokens[0].id must be a whole number in [0, 16777215] and is "
            "1099511627776");
  EXPECT_EQ(ErrorOf(With("/post_processor",
                         {{"type", "BertProcessing"}, {"cls", {"x", 1}}, {"sep", {"y", 999}}})),
            "tokenizer.json: post_processor: id 999 is not in the vocabulary");
}

TEST(BadJson, AbsurdNestingAndSizes) {
  nlohmann::json nested = {{"type", "NFC"}};
  for (int i = 0; i < 40; ++i) nested = {{"type", "Sequence"}, {"normalizers", {nested}}};
  EXPECT_NE(ErrorOf(With("/normalizer", nested)).find("nested too deep"), std::string::npos);
  EXPECT_NE(ErrorOfText(std::string(100000, '[')), "");
  EXPECT_NE(ErrorOfText("{\"a\":" + std::string(100000, '[') + std::string(100000, ']') + "}"), "");
  nlohmann::json steps = nlohmann::json::array();
  for (int i = 0; i < 100; ++i) steps.push_back({{"type", "NFC"}});
  EXPECT_NE(ErrorOf(With("/normalizer", {{"type", "Sequence"}, {"normalizers", steps}}))
                .find("at most 64"),
            std::string::npos);
  // A normalizer that would blow text up without end is stopped while it runs.
  nlohmann::json grow = nlohmann::json::array();
  for (int i = 0; i < 6; ++i) {
    grow.push_back(
        {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(4000, 'a')}});
  }
  auto tokenizer =
      MakeTokenizer(With("/normalizer", {{"type", "Sequence"}, {"normalizers", grow}}));
  EXPECT_EQ(tokenizer->Encode("a").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(BadJson, MissingFile) {
  EXPECT_EQ(Tokenizer::Load("/nonexistent/tokenizer.json").status().code(),
            absl::StatusCode::kNotFound);
}

// Bytes changed, cut off, taken out, doubled.
std::string DamageBytes(std::string text, std::mt19937* random) {
  for (size_t n = 1 + (*random)() % 3; n > 0; --n) {
    const size_t at = (*random)() % text.size();
    switch ((*random)() % 4) {
      case 0:
        text[at] = static_cast<char>((*random)());
        break;
      case 1:
        if ((*random)() % 4 == 0) text.resize(at + 1);
        break;
      case 2:
        text.erase(at, 1 + (*random)() % 20);
        break;
      case 3:
        text.insert(at, text.substr((*random)() % text.size(), (*random)() % 60));
        break;
    }
    if (text.empty()) text = " ";
  }
  return text;
}

// Values changed for others, of the same document or absurd, and left out.
nlohmann::json DamageValues(const nlohmann::json& good, std::mt19937* random) {
  const nlohmann::json absurd[] = {nullptr,
                                   true,
                                   -1,
                                   1e99,
                                   "",
                                   "\0",
                                   UINT64_MAX,
                                   7,
                                   "x*",
                                   nlohmann::json::array(),
                                   nlohmann::json::object()};
  nlohmann::json document = good;
  std::vector<nlohmann::json*> places;
  auto collect = [&](auto&& self, nlohmann::json& value) -> void {
    // Of a long list or a vocabulary, a few members are enough.
    size_t left = value.size() > 30 ? 3 : value.size();
    for (auto it = value.begin(); it != value.end() && left > 0; ++it, --left) {
      places.push_back(&*it);
      if (it->is_structured()) self(self, *it);
    }
  };
  for (size_t n = 1 + (*random)() % 2; n > 0; --n) {
    places.clear();
    collect(collect, document);
    nlohmann::json* place = places[(*random)() % places.size()];
    const nlohmann::json other = *places[(*random)() % places.size()];
    *place = (*random)() % 2 ? other : absurd[(*random)() % std::size(absurd)];
  }
  return document;
}

// Seeded damage to good files: never a crash, and a tokenizer that was made works.
class Mutations : public testing::TestWithParam<std::string> {};

TEST_P(Mutations, NeverCrash) {
  nlohmann::json good =
      nlohmann::json::parse(ReadText(GoldenDir() + "/" + GetParam() + "/tokenizer.json"));
  auto& merges = good["model"]["merges"];
  while (merges.size() > 20) merges.erase(merges.size() - 1);
  const std::string good_text = good.dump();
  std::mt19937 random(11);
  int parsed = 0;
  for (int round = 0; round < 300; ++round) {
    const std::string bad =
        round % 3 == 0 ? DamageBytes(good_text, &random)
                       : DamageValues(good, &random)
                             .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    auto tokenizer = Tokenizer::Parse(bad, "tokenizer.json");
    if (!tokenizer.ok()) {
      EXPECT_EQ(tokenizer.status().message().substr(0, 14), "tokenizer.json");
      continue;
    }
    ++parsed;
    auto ids = (*tokenizer)->Encode("Hello <s> wörld\n 123 \u2581");
    if (ids.ok()) {
      EXPECT_TRUE((*tokenizer)->Decode(*ids, true).ok());
    }
  }
  EXPECT_GT(parsed, 10);
}

INSTANTIATE_TEST_SUITE_P(Every, Mutations, testing::ValuesIn(GoldenNames()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace switchyard::worker
