#include "cli/utf8.h"

#include <gtest/gtest.h>

namespace switchyard::cli {
namespace {

TEST(Utf8, TakesWhatIsWellFormed) {
  for (const std::string& text :
       {std::string(), std::string("plain"), std::string("\xC3\xA9\xE4\xB8\x96\xF0\x9F\x9A\x82"),
        std::string("\0nul", 4), std::string("\xF4\x8F\xBF\xBF\xEF\xBF\xBF")}) {
    EXPECT_TRUE(CheckUtf8(text, "text").ok()) << text;
  }
}

TEST(Utf8, NamesTheFirstByteThatIsNot) {
  // A lone continuation, cut short, overlong, a surrogate, beyond U+10FFFF, never used.
  for (const char* text : {"\x80", "\xC3", "\xE4\xB8", "\xC0\xAF", "\xE0\x80\xAF", "\xED\xA0\x80",
                           "\xF4\x90\x80\x80", "\xF0\x80\x80\xAF", "\xFF", "\xC3("}) {
    const absl::Status status = CheckUtf8(std::string("ab") + text, "the prompt");
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << text;
    EXPECT_EQ(status.message(), "the prompt is not valid UTF-8 at byte 2");
  }
}

}  // namespace
}  // namespace switchyard::cli
