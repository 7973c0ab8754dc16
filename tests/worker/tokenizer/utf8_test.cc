#include "worker/tokenizer/utf8.h"

#include <gtest/gtest.h>

#include "tests/worker/tokenizer/support.h"

namespace switchyard::worker::tokenizer {
namespace {

std::string Lossy(std::string_view bytes, size_t step) {
  LossyUtf8Decoder decoder;
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += step) decoder.Push(bytes.substr(i, step), &out);
  decoder.Finish(&out);
  return out;
}

TEST(Utf8, RoundTripOfEveryCharacter) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    AppendUtf8(c, &text);
    size_t pos = 0, back = text.size();
    ASSERT_EQ(DecodeUtf8(text, &pos), c);
    ASSERT_EQ(pos, text.size());
    ASSERT_EQ(DecodeUtf8Backward(text, &back), c);
    ASSERT_EQ(back, 0u);
    ASSERT_EQ(FindInvalidUtf8(text), std::string_view::npos);
  }
}

TEST(Utf8, FindsTheFirstInvalidByte) {
  EXPECT_EQ(FindInvalidUtf8("abc\xFF"), 3u);
  EXPECT_EQ(FindInvalidUtf8("0123456789\xC3"), 10u);   // cut short
  EXPECT_EQ(FindInvalidUtf8("\xC0\x80"), 0u);          // overlong
  EXPECT_EQ(FindInvalidUtf8("a\xED\xA0\x80"), 1u);     // a surrogate
  EXPECT_EQ(FindInvalidUtf8("\xF4\x90\x80\x80"), 0u);  // above U+10FFFF
  EXPECT_EQ(FindInvalidUtf8("\xE2\x82\xAC\x80"), 3u);  // a stray continuation
  EXPECT_EQ(FindInvalidUtf8("ok \xF0\x9F\x98\x80"), std::string_view::npos);
}

TEST(Utf8, LossyWritesOneReplacementForEveryBrokenStart) {
  const std::string r = "\xEF\xBF\xBD";
  const std::pair<std::string, std::string> cases[] = {
      {"a\x80z", "a" + r + "z"},
      {"\xE2\x82z", r + "z"},
      {"\xE2\x82", r},
      {"\xF0\x9F\x98", r},
      {"\xF0\x9F\x98\x80", "\xF0\x9F\x98\x80"},
      {"\xED\xA0\x80", r + r + r},
      {"\xC0\xAF", r + r},
      {"\xF5\x80\x80\x80", r + r + r + r},
      {"\xE2\xE2\x82\xAC", r + "\xE2\x82\xAC"},
  };
  for (const auto& [bytes, want] : cases) {
    for (size_t step : {1, 2, 3, 100}) EXPECT_EQ(Lossy(bytes, step), want);
  }
}

TEST(Encode, RefusesInvalidUtf8WithTheOffset) {
  auto tokenizer = MakeTokenizer(BytesOnly());
  auto ids = tokenizer->Encode("four\xFF");
  EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ids.status().message(), "the text is not valid UTF-8: byte 0xff at offset 4");
  EXPECT_FALSE(tokenizer->Encode("\xED\xA0\x80").ok());
  EXPECT_FALSE(tokenizer->Encode("ends \xE2\x82").ok());
  EXPECT_TRUE(tokenizer->Encode(std::string_view("\0", 1)).ok());
}

}  // namespace
}  // namespace switchyard::worker::tokenizer
