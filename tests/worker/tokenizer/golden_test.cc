// Ids and text equal to what the `tokenizers` library says (tests/golden/tokenizers/make.py).
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/worker/tokenizer/support.h"

namespace switchyard::worker {
namespace {

std::string Expand(const nlohmann::json& entry) {
  if (entry.is_string()) return entry.get<std::string>();
  std::string text;
  for (int i = 0; i < entry[1].get<int>(); ++i) text += entry[0].get<std::string>();
  return text;
}

std::string Streamed(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip) {
  StreamingDecoder decoder(tokenizer, skip);
  std::string text;
  for (int32_t id : ids) text += decoder.Push(id);
  return text + decoder.Finish();
}

// `expected` is a case as make.py describes it.
void Check(const Tokenizer& tokenizer, const std::string& text, const nlohmann::json& expected) {
  SCOPED_TRACE("text: " + nlohmann::json(text.substr(0, 200))
                              .dump(-1, ' ', true, nlohmann::json::error_handler_t::replace));
  auto ids = tokenizer.Encode(text);
  ASSERT_TRUE(ids.ok()) << ids.status();
  const auto want = expected[0].get<std::vector<int64_t>>();
  if (!want.empty() && want[0] == -1) {
    EXPECT_EQ(ids->size(), static_cast<size_t>(want[1]));
    EXPECT_EQ(CrcOfIds(*ids), want[2]);
  } else {
    EXPECT_EQ(std::vector<int64_t>(ids->begin(), ids->end()), want);
  }
  auto plain = tokenizer.Encode(text, {.add_special_tokens = false});
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(CrcOfIds(*plain), expected[1]);
  auto unparsed = tokenizer.Encode(text, {.add_special_tokens = false, .parse_special = false});
  ASSERT_TRUE(unparsed.ok()) << unparsed.status();
  EXPECT_EQ(CrcOfIds(*unparsed), expected[2]);
  for (bool skip : {false, true}) {
    auto decoded = tokenizer.Decode(*ids, skip);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    const auto crc = expected[skip ? 4 : 3].get<uint32_t>();
    EXPECT_EQ(*decoded == text ? 0 : Crc32(*decoded), crc) << "skip=" << skip << ": " << *decoded;
    EXPECT_EQ(Streamed(tokenizer, *ids, skip), *decoded);
  }
}

class Golden : public testing::TestWithParam<std::string> {};

TEST_P(Golden, EqualToTheLibrary) {
  auto tokenizer = Tokenizer::Load(GoldenDir() + "/" + GetParam() + "/tokenizer.json");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto shared = nlohmann::json::parse(ReadText(GoldenDir() + "/texts.json"));
  const auto golden =
      nlohmann::json::parse(ReadText(GoldenDir() + "/" + GetParam() + "/cases.json"));
  std::vector<std::string> texts;
  for (size_t i = 0; i < shared.size(); i += golden["every"].get<size_t>()) {
    texts.push_back(Expand(shared[i]));
  }
  for (const auto& entry : golden["own_texts"]) texts.push_back(Expand(entry));
  ASSERT_EQ(texts.size(), golden["cases"].size());
  ASSERT_GT(texts.size(), 400u);
  for (size_t i = 0; i < texts.size() && !HasFailure(); ++i) {
    Check(**tokenizer, texts[i], golden["cases"][i]);
  }
}

TEST_P(Golden, RefusesInvalidUtf8) {
  auto tokenizer = Tokenizer::Load(GoldenDir() + "/" + GetParam() + "/tokenizer.json");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  for (const char* text :
       {"four\xFF", "\xED\xA0\x80", "ends \xE2\x82", "\xC0\xAF", "\xF4\x90\x80\x80"}) {
    EXPECT_TRUE(absl::IsInvalidArgument((*tokenizer)->Encode(text).status())) << text;
  }
}

INSTANTIATE_TEST_SUITE_P(Every, Golden, testing::ValuesIn(GoldenNames()),
                         [](const auto& info) { return info.param; });

// Over a folder of real texts that the repository does not hold. make.py --expect writes the
// expectations.
TEST(Corpus, EqualToTheLibrary) {
  const char* dir = std::getenv("SWITCHYARD_CORPUS_DIR");
  const char* expected_path = std::getenv("SWITCHYARD_CORPUS_EXPECTED");
  if (dir == nullptr || expected_path == nullptr) GTEST_SKIP() << "no corpus is given";
  const auto expected = nlohmann::json::parse(ReadText(expected_path));
  ASSERT_FALSE(expected.empty());
  for (const auto& [name, files] : expected.items()) {
    SCOPED_TRACE(name);
    auto tokenizer = Tokenizer::Load(GoldenDir() + "/" + name + "/tokenizer.json");
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    for (const auto& [file, want] : files.items()) {
      SCOPED_TRACE(file);
      Check(**tokenizer, ReadText(std::string(dir) + "/" + file), want);
    }
  }
}

}  // namespace
}  // namespace switchyard::worker
