// Hostile texts take time in proportion to their length: twice the text may not cost four times as
// much, and none takes long.
#include <gtest/gtest.h>

#include <ctime>

#include "tests/worker/tokenizer/support.h"

namespace switchyard::worker {
namespace {

// Processor time, so that a busy machine changes nothing.
double Seconds(const Tokenizer& tokenizer, const std::string& text) {
  const std::clock_t start = std::clock();
  auto ids = tokenizer.Encode(text);
  EXPECT_TRUE(ids.ok()) << ids.status();
  if (ids.ok()) {
    EXPECT_TRUE(tokenizer.Decode(*ids, true).ok());
  }
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

class LongText : public testing::TestWithParam<std::string> {};

TEST_P(LongText, IsNotQuadratic) {
  auto tokenizer = Tokenizer::Load(GoldenDir() + "/" + GetParam() + "/tokenizer.json");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  for (const char* unit : {"a", " ", "\n", "\u0301", "\u0301\u0323", "A", "aA", "1", "!", "字", "'",
                           " a", "\t\n", "<", "<|", "\u2581", "é", "the", "<0x0A>"}) {
    std::string text;
    while (text.size() < 200'000) text += unit;
    // A quadratic step at 200 KB would take minutes; sanitizers stay far below.
    EXPECT_LT(Seconds(**tokenizer, text), 6.0) << "unit " << unit;
  }
}

INSTANTIATE_TEST_SUITE_P(Every, LongText,
                         testing::Values("llama3", "qwen", "o200k", "glm", "gemma", "llama2",
                                         "mistral_metaspace", "metaspace_decoder"),
                         [](const auto& info) { return info.param; });

TEST(LongText, OneWordOfAMegabyte) {
  auto tokenizer = Tokenizer::Load(GoldenDir() + "/llama2/tokenizer.json");
  ASSERT_TRUE(tokenizer.ok());
  std::string text;
  for (uint32_t i = 0, x = 1; i < 1'000'000; ++i) {
    x = x * 1664525u + 1013904223u;
    text += "etaoinshrdlu"[x >> 24 & 7];
  }
  EXPECT_LT(Seconds(**tokenizer, text), 10.0);
}

}  // namespace
}  // namespace switchyard::worker
