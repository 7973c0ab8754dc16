#include "common/utf8.h"

#include <gtest/gtest.h>

namespace switchyard {
namespace {

TEST(ValidUtf8, KeepsWhatIsValid) {
  const std::string text("nul \0 \xC3\xA9\xE4\xB8\x96\xF0\x9F\x9A\x82", 15);
  EXPECT_EQ(ValidUtf8(text), text);
  EXPECT_EQ(ValidUtf8(""), "");
}

TEST(ValidUtf8, ReplacesWhatIsNot) {
  EXPECT_EQ(ValidUtf8("a\xFF\x80z"), "a\xEF\xBF\xBD\xEF\xBF\xBDz");
  EXPECT_EQ(ValidUtf8("cut \xE4\xB8"), "cut \xEF\xBF\xBD");
}

TEST(ValidUtf8, CutsAtTheBorderOfACharacter) {
  std::string text = "a";
  for (int i = 0; i < 100; ++i) text += "\xE4\xB8\x96";
  for (size_t most = 0; most < text.size(); ++most) {
    const std::string cut = ValidUtf8(text, most);
    EXPECT_EQ(FindInvalidUtf8(cut), std::string::npos) << most;
    EXPECT_LE(cut.size(), most + 3);
    EXPECT_EQ(cut.substr(cut.size() - 3), "...");
  }
  EXPECT_EQ(ValidUtf8(text, text.size()), text);
}

}  // namespace
}  // namespace switchyard
