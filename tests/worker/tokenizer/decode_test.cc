#include <gtest/gtest.h>

#include <random>

#include "tests/worker/tokenizer/support.h"
#include "worker/tokenizer/decoder.h"
#include "worker/tokenizer/utf8.h"

namespace switchyard::worker {
namespace {

nlohmann::json Replace(const std::string& from, const std::string& to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

// Decodes `tokens` with the decoder, all at once and token by token, and wants both to agree.
std::string Decode(const nlohmann::json& decoder, const std::vector<std::string>& tokens) {
  nlohmann::json document = {{"model", {{"type", "BPE"}, {"merges", nlohmann::json::array()}}}};
  document["decoder"] = decoder;
  std::vector<int32_t> ids;
  for (const std::string& token : tokens) {
    auto& vocab = document["model"]["vocab"];
    if (!vocab.contains(token)) vocab[token] = vocab.size();
    ids.push_back(vocab[token].get<int32_t>());
  }
  auto tokenizer = MakeTokenizer(document);
  auto text = tokenizer->Decode(ids, false);
  EXPECT_TRUE(text.ok()) << text.status();
  StreamingDecoder stream(*tokenizer, false);
  std::string streamed;
  for (int32_t id : ids) streamed += stream.Push(id);
  EXPECT_EQ(streamed + stream.Finish(), *text);
  return *text;
}

nlohmann::json Sequence(const std::vector<nlohmann::json>& steps) {
  return {{"type", "Sequence"}, {"decoders", steps}};
}

const nlohmann::json kByteFallback = {{"type", "ByteFallback"}};
const nlohmann::json kFuse = {{"type", "Fuse"}};

nlohmann::json Strip(int start, int stop) {
  return {{"type", "Strip"}, {"content", " "}, {"start", start}, {"stop", stop}};
}

TEST(Decode, Steps) {
  const std::string r = "\uFFFD";
  EXPECT_EQ(Decode({{"type", "ByteLevel"}}, {"Ġa", "é", "a b", "Ã", "©"}), " a" + r + "a bé");
  EXPECT_EQ(Decode(kByteFallback, {"<0xE4>", "<0xBD>", "<0xA0>", "a"}), "你a");
  EXPECT_EQ(Decode(kByteFallback, {"<0xE4>", "<0xBD>", "<0xA0>", "<0x80>", "a"}),
            r + r + r + r + "a");
  EXPECT_EQ(Decode(nullptr, {"a", "b", "c"}), "a b c");
  EXPECT_EQ(Decode(Strip(1, 1), {"  a  ", " b"}), " a b");
  EXPECT_EQ(Decode(Sequence({kFuse, Strip(1, 1)}), {" ", " a ", " ", "b", " ", " "}), " a  b ");
  EXPECT_EQ(Decode(Sequence({kFuse, Strip(2, 0)}), {" ", " ", " ", "b"}), " b");
  EXPECT_EQ(Decode(Sequence({kFuse, Replace("ab", "X")}), {"a", "b", "a"}), "Xa");
  EXPECT_EQ(Decode(Replace("ab", "X"), {"a", "b", "ab"}), "abX");
  const nlohmann::json metaspace = {{"type", "Metaspace"}, {"replacement", "_"}};
  EXPECT_EQ(Decode(metaspace, {"__a_", "_b", "_"}), "a b ");
  EXPECT_EQ(Decode(Sequence({Replace("_", " "), kByteFallback, kFuse, Strip(1, 0)}),
                   {"_a", "_b", "<0x0A>"}),
            "a b\n");
}

TEST(Decode, RefusesUnknownIds) {
  auto tokenizer = MakeTokenizer(BytesOnly());
  for (int32_t id : {-1, 256, 1 << 30}) {
    auto text = tokenizer->Decode(std::vector<int32_t>{65, id}, false);
    EXPECT_EQ(text.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(std::string(text.status().message()).find(std::to_string(id)), std::string::npos);
    StreamingDecoder stream(*tokenizer, false);
    EXPECT_EQ(stream.Push(id), "");
  }
}

// Random ids, as a model with random weights writes them: broken characters all over.
TEST(StreamingDecoder, RandomIdsComeOutWholeAndEqual) {
  for (const std::string& name : GoldenNames()) {
    auto tokenizer = Tokenizer::Load(GoldenDir() + "/" + name + "/tokenizer.json");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    std::mt19937 random(3);
    for (int round = 0; round < 200; ++round) {
      std::vector<int32_t> ids;
      // Low ids are single bytes in most of these vocabularies.
      const int32_t limit = round % 2 ? (*tokenizer)->vocab_size() : 300;
      for (size_t i = 0; i < 1 + random() % 60; ++i) {
        const auto id = static_cast<int32_t>(random() % static_cast<uint32_t>(limit));
        if ((*tokenizer)->IdToToken(id)) ids.push_back(id);
      }
      for (bool skip : {false, true}) {
        StreamingDecoder stream(**tokenizer, skip);
        std::string text;
        for (int32_t id : ids) {
          const std::string part = stream.Push(id);
          ASSERT_EQ(FindInvalidUtf8(part), std::string_view::npos);
          text += part;
        }
        text += stream.Finish();
        auto whole = (*tokenizer)->Decode(ids, skip);
        ASSERT_TRUE(whole.ok()) << whole.status();
        ASSERT_EQ(text, *whole) << name;
      }
    }
  }
}

TEST(StreamingDecoder, TextComesAsSoonAsItIsCertain) {
  auto tokenizer = Tokenizer::Load(GoldenDir() + "/llama3/tokenizer.json");
  ASSERT_TRUE(tokenizer.ok());
  StreamingDecoder stream(**tokenizer, true);
  auto ids = (*tokenizer)->Encode("it 😀", {.add_special_tokens = false});
  ASSERT_TRUE(ids.ok());
  ASSERT_GE(ids->size(), 4u);  // the emoji is several tokens of this small vocabulary
  std::vector<std::string> parts;
  for (int32_t id : *ids) {
    const std::string part = stream.Push(id);
    if (!part.empty()) parts.push_back(part);
  }
  EXPECT_EQ(parts.front().substr(0, 1), "i");
  EXPECT_EQ(parts.back(), "😀");
  EXPECT_EQ(stream.Finish(), "");
}

}  // namespace
}  // namespace switchyard::worker
