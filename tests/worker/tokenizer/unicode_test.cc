#include "worker/tokenizer/unicode.h"

#include <gtest/gtest.h>

#include "tests/worker/tokenizer/support.h"

namespace switchyard::worker {
namespace {

std::string Apply(const nlohmann::json& normalizer, std::string_view text) {
  nlohmann::json document = BytesOnly();
  document["normalizer"] = normalizer;
  return Normalized(*MakeTokenizer(document), text);
}

TEST(Normalizer, Forms) {
  EXPECT_EQ(Apply({{"type", "NFC"}}, "e\u0301 \u212B \u1112\u1161\u11AB"), "é Å 한");
  EXPECT_EQ(Apply({{"type", "NFD"}}, "é"), "e\u0301");
  EXPECT_EQ(Apply({{"type", "NFKC"}}, "ﬁ①"), "fi1");
  EXPECT_EQ(Apply({{"type", "NFKD"}}, "ﬁé"), "fie\u0301");
  EXPECT_EQ(Apply({{"type", "NFC"}}, "a\u0301\u0323"), "\u1EA1\u0301");
  EXPECT_EQ(Apply({{"type", "NFC"}}, ""), "");
}

TEST(Normalizer, KnowsTheLibrarysVersionOfUnicode) {
  // U+1DF8 has a combining class since Unicode 10; here it is a base and stays where it is.
  EXPECT_EQ(Apply({{"type", "NFD"}}, "a\u0345\u1DF8\u0301"), "a\u0345\u1DF8\u0301");
}

TEST(Normalizer, OtherSteps) {
  EXPECT_EQ(Apply({{"type", "Lowercase"}}, "ΑΣ İK"), "ασ i\u0307k");
  EXPECT_EQ(Apply({{"type", "StripAccents"}}, "e\u0301\u20DDx"), "ex");
  EXPECT_EQ(Apply({{"type", "Strip"}, {"strip_left", true}, {"strip_right", false}}, "\u3000 a "),
            "a ");
  EXPECT_EQ(Apply({{"type", "Strip"}, {"strip_left", false}, {"strip_right", true}}, " a \n"),
            " a");
  EXPECT_EQ(Apply({{"type", "Prepend"}, {"prepend", "_"}}, "a"), "_a");
  EXPECT_EQ(Apply({{"type", "Prepend"}, {"prepend", "_"}}, ""), "");
  EXPECT_EQ(
      Apply({{"type", "Replace"}, {"pattern", {{"String", "a.b"}}}, {"content", "$0"}}, "a.baxb"),
      "$0axb");
  EXPECT_EQ(
      Apply({{"type", "Replace"}, {"pattern", {{"Regex", "x*"}}}, {"content", "_"}}, "a bxx abc"),
      "_a_ _b_ _a_b_c_");
  EXPECT_EQ(
      Apply({{"type", "Sequence"},
             {"normalizers", {{{"type", "Lowercase"}}, {{"type", "Prepend"}, {"prepend", "X"}}}}},
            "A"),
      "Xa");
}

TEST(Unicode, Classes) {
  using namespace tokenizer;  // NOLINT
  EXPECT_TRUE(IsWhiteSpace(0x85) && IsWhiteSpace(0x3000) && IsWhiteSpace('\v'));
  EXPECT_FALSE(IsWhiteSpace(0x200B) || IsWhiteSpace(0x180E) || IsWhiteSpace(0xFEFF));
  EXPECT_TRUE(IsNumeric(0xBD) && IsNumeric(0x2167) && IsNumeric('7'));
  EXPECT_TRUE(IsPunctuation('$') && IsPunctuation(0x2014) && !IsPunctuation(0x20AC));
  EXPECT_TRUE(IsWord('_') && IsWord(0x301) && IsWord(0x24B6) && !IsWord('-') && !IsWord(0xB2));
}

}  // namespace
}  // namespace switchyard::worker
