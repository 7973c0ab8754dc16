#include "common/printable.h"

#include <gtest/gtest.h>

namespace switchyard {
namespace {

TEST(Printable, LeavesText) {
  EXPECT_EQ(Printable(""), "");
  EXPECT_EQ(Printable("plain, \xC3\xA9, \xE4\xB8\x96, \xF0\x9F\x9A\x82"),
            "plain, \xC3\xA9, \xE4\xB8\x96, \xF0\x9F\x9A\x82");
  EXPECT_EQ(Printable("\xC2\xA0"), "\xC2\xA0");  // the first after C1
}

TEST(Printable, EscapesWhatATerminalObeys) {
  EXPECT_EQ(Printable("a\x1B[2Jb"), "a\\x1B[2Jb");
  EXPECT_EQ(Printable(std::string_view("\0\x7F\r", 3)), "\\x00\\x7F\\x0D");
  EXPECT_EQ(Printable("\xC2\x9B"
                      "31m"),
            "\\x9B31m");  // CSI in one character
  EXPECT_EQ(Printable("\n\t"), "\\x0A\\x09");
  EXPECT_EQ(Printable("one\n\ttwo\x07", kLines), "one\n\ttwo\\x07");
}

TEST(Printable, ReplacesWhatIsNotText) {
  EXPECT_EQ(Printable("a\xFF"
                      "b"),
            "a\xEF\xBF\xBD"
            "b");
  EXPECT_EQ(Printable("\x9B"), "\xEF\xBF\xBD");
  std::string much;
  for (int i = 0; i < 1000; ++i) much += "\xEF\xBF\xBD";
  EXPECT_EQ(Printable(std::string(1000, '\xFF')), much);  // nothing is cut off
}

}  // namespace
}  // namespace switchyard
