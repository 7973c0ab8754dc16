#include "worker/tokenizer/oniguruma.h"

#include <gtest/gtest.h>

#include "common/utf8.h"
#include "tests/worker/tokenizer/support.h"
#include "worker/tokenizer/regex.h"

namespace switchyard::worker::tokenizer {
namespace {

// All matches, each in brackets.
std::string Matches(const std::string& pattern, std::string_view text) {
  auto regex = Regex::Compile({true, pattern});
  if (!regex.ok()) return std::string(regex.status().message());
  std::string out;
  absl::Status status = regex->ForEachMatch(text, [&](size_t begin, size_t end) {
    out += "[" + std::string(text.substr(begin, end - begin)) + "]";
  });
  return status.ok() ? out : std::string(status.message());
}

TEST(Oniguruma, SameSets) {
  EXPECT_EQ(Matches(R"(\s)", "a\u180E\u3000b"), "[\u3000]");
  EXPECT_EQ(Matches(R"([^\S\n]+)", "a \n\tb"), "[ ][\t]");
  EXPECT_EQ(Matches(R"(\w+)", "e\u0301_\u0660-\u00B2"), "[e\u0301_\u0660][\u00B2]");
  EXPECT_EQ(Matches(R"([\w]+)", "a\u00B2"), "[a]");
  EXPECT_EQ(Matches(R"(\h+)", "xyzBADg"), "[BAD]");
  EXPECT_EQ(Matches(R"(\v)", "\v\n"), "[\v]");
  EXPECT_EQ(Matches(R"([\d-z]+)", "1-z5y"), "[1-z5]");
  EXPECT_EQ(Matches(R"([a-\d]+)", "a-3b"), "[a-3]");
  EXPECT_EQ(Matches(R"([[:x]+)", "a"),
            "pattern \"[[:x]+\": \"[ in a character class\" is not supported");
}

TEST(Oniguruma, SameQuantifiers) {
  EXPECT_EQ(Matches(R"(^\d{1,3}+$)", "1234567"), "[1234567]");  // repeated, not possessive
  EXPECT_EQ(Matches(R"((ab){2}+)", "ababababab"), "[abababab]");
  EXPECT_EQ(Matches("x{,2}y", "xxxy"), "[xxy]");
  EXPECT_EQ(Matches("a{b}", "a{b}"), "[a{b}]");
  EXPECT_EQ(Matches("a++a|b", "aab"), "[b]");
  EXPECT_EQ(Matches("a{2}?b", "b aab"), "[b][aab]");
}

TEST(Oniguruma, SameGroupsFlagsAndAnchors) {
  EXPECT_EQ(Matches("(?i:'s|'t)", "'S'\u017F'x"), "['S]['\u017F]");
  EXPECT_EQ(Matches("(?m:a.b)", "a\nb"), "[a\nb]");
  EXPECT_EQ(Matches("a.b", "a\nb"), "");
  EXPECT_EQ(Matches("^a$", "a\nb\na"), "[a][a]");
  EXPECT_EQ(Matches("(?<n>a)(?#note)b", "ab"), "[ab]");
  EXPECT_EQ(Matches(R"(\bword\b)", "word words"), "[word]");
  EXPECT_EQ(Matches(R"(\p{Letter}\p{^Lu})", "aB ab"), "[B ][ab]");
  EXPECT_EQ(Matches(R"(\u00e9|\x41)", "éA"), "[é][A]");
  EXPECT_EQ(Matches("x*", "axb"), "[][x][]");
}

TEST(Oniguruma, NewerCharactersThanPcreKnows) {
  EXPECT_EQ(Matches(R"(\p{L}+)", "a\U00031350\u1C89b"), "[a\U00031350\u1C89b]");
}

TEST(Oniguruma, RefusedByName) {
  for (const char* pattern :
       {"[a[b]]", "[a-z&&b]", "(*FAIL)", "(?R)",  "(?{x})",        "(?(1)a|b)", "\\R",   "\\K",
        "\\Q",    "a(?i)b",   "(?x: a)", "[\\W]", "\\xFF",         "\\p{L",     "[a",    "\\",
        "(a",     "a)",       "**",      "\\8",   "\\p{Nonsense}", "(?C1)",     "\\g<1>"}) {
    EXPECT_FALSE(Regex::Compile({true, pattern}).ok()) << pattern;
  }
  const std::string message(Regex::Compile({true, "(?\xE4\xB8\x96)"}).status().message());
  EXPECT_EQ(FindInvalidUtf8(message), std::string::npos) << message;
}

TEST(Regex, HostilePatternIsAnErrorAndNoCrash) {
  const std::string many(30, 'a');
  EXPECT_NE(Matches("^(a+)+$", many + "b").find("match limit exceeded"), std::string::npos);
  EXPECT_FALSE(Regex::Compile({true, std::string(5000, '(') + std::string(5000, ')')}).ok());
  EXPECT_FALSE(Regex::Compile({true, "((((a{1000}){1000}){1000}){1000})"}).ok());
  // Deep recursion of a group: either it matches, or it is refused.
  const std::string text(200000, 'a');
  const std::string got = Matches("(?:a|b|(c))+", text);
  EXPECT_TRUE(got.size() == text.size() + 2 || got.find("pattern") == 0) << got.substr(0, 100);
}

}  // namespace
}  // namespace switchyard::worker::tokenizer
