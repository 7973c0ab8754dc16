#include "common/human.h"

#include <gtest/gtest.h>

namespace switchyard {
namespace {

TEST(ParseBytes, UnderstandsWhatPeopleWrite) {
  EXPECT_EQ(*ParseBytes("0"), 0u);
  EXPECT_EQ(*ParseBytes("12"), 12u);
  EXPECT_EQ(*ParseBytes("12B"), 12u);
  EXPECT_EQ(*ParseBytes("512KiB"), 512u * 1024);
  EXPECT_EQ(*ParseBytes("1.5 GiB"), 1536ull << 20);
  EXPECT_EQ(*ParseBytes("80G"), 80ull << 30);
  EXPECT_EQ(*ParseBytes("2GB"), 2'000'000'000ull);
}

TEST(ParseBytes, RefusesTheRest) {
  for (const char* text : {"", "x", "-1", "1 XB", "nan", "inf", "1e30", "12 MiB 3", "GiB", "0x"}) {
    EXPECT_EQ(ParseBytes(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(ParseDuration, UnderstandsUnits) {
  EXPECT_EQ(*ParseDuration("500ms"), 500'000'000);
  EXPECT_EQ(*ParseDuration("90s"), 90'000'000'000);
  EXPECT_EQ(*ParseDuration("1.5"), 1'500'000'000);
  EXPECT_EQ(*ParseDuration("2h"), 7'200'000'000'000);
  for (const char* text : {"", "s", "-1s", "1d", "1e20h"}) {
    EXPECT_FALSE(ParseDuration(text).ok()) << text;
  }
}

TEST(Sentence, EndsAsOneWhateverTheTextEndsIn) {
  EXPECT_EQ(Sentence("no such file"), "no such file.");
  EXPECT_EQ(Sentence("/m/a (2 of 3)"), "/m/a (2 of 3).");
  for (const char* end : {".", "?", "!", "...", "?\n", ". ", ".:"}) {
    const std::string text = std::string("truncated") + end;
    EXPECT_EQ(Sentence(text), text.substr(0, text.find_last_of(".?!") + 1));
  }
  for (const char* end : {":", ",", ";", "\n", " \t\r\n", ": "}) {
    EXPECT_EQ(Sentence(std::string("truncated") + end), "truncated.");
  }
  EXPECT_EQ(Sentence(""), "");
}

TEST(HumanBytes, IsShort) {
  EXPECT_EQ(HumanBytes(0), "0 B");
  EXPECT_EQ(HumanBytes(1023), "1023 B");
  EXPECT_EQ(HumanBytes(1536), "1.50 KiB");
  EXPECT_EQ(HumanBytes(80ull << 30), "80.0 GiB");
}

TEST(HumanBytes, CanBeToldFromWhatItIsComparedWith) {
  constexpr uint64_t kMiB = 1 << 20;
  EXPECT_EQ(HumanBytes(13 * kMiB, 12 * kMiB), "13.0 MiB");
  EXPECT_EQ(HumanBytes(13 * kMiB, 13 * kMiB), "13.0 MiB");
  EXPECT_EQ(HumanBytes(13 * kMiB + 4096, 13 * kMiB), "13.004 MiB");
  EXPECT_EQ(HumanBytes(13 * kMiB, 13 * kMiB + 4096), "13.000 MiB");
  EXPECT_EQ(HumanBytes(13 * kMiB + 1, 13 * kMiB), "13631489 bytes");
  EXPECT_EQ(HumanBytes(13 * kMiB, 13 * kMiB + 1), "13631488 bytes");
  EXPECT_EQ(HumanBytes(kMiB, kMiB - 1), "1.00 MiB") << "which is 1024.0 KiB";
}

}  // namespace
}  // namespace switchyard
