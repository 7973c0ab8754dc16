#include "worker/stop_strings.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace switchyard::worker {
namespace {

struct Result {
  std::string text;
  bool stopped = false;
};

// Straight from the definition: the shortest prefix that ends with a stop string, and of the stop
// strings that it ends with the longest.
Result Oracle(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

// Whether `text` ends with a beginning of a stop string.
bool EndsOpen(const std::string& text, const std::vector<std::string>& stops) {
  for (const std::string& stop : stops) {
    for (size_t n = 1; n < stop.size() && n <= text.size(); ++n) {
      if (text.compare(text.size() - n, n, stop, 0, n) == 0) return true;
    }
  }
  return false;
}

TEST(StopMatcher, HoldsBackWhatMayBecomeAStop) {
  StopMatcher matcher({"\n\nUser:"});
  EXPECT_EQ(matcher.Push("Hello\n"), "Hello");
  EXPECT_EQ(matcher.Push("\nUse"), "");
  EXPECT_EQ(matcher.Push("ful"), "\n\nUseful");
  EXPECT_EQ(matcher.Push("\n"), "");
  EXPECT_EQ(matcher.Finish(), "\n");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcher, DropsWhatFollows) {
  StopMatcher matcher({"stop"});
  EXPECT_EQ(matcher.Push("a stop b"), "a ");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.Push("more"), "");
  EXPECT_EQ(matcher.Finish(), "");
}

TEST(StopMatcher, LongestOfThoseThatEndTogether) {
  StopMatcher matcher({"bc", "abc"});
  EXPECT_EQ(matcher.Push("xabc"), "x");
  EXPECT_TRUE(matcher.stopped());
}

TEST(StopMatcher, NoStopsPassEverything) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.Push("abc"), "abc");
  EXPECT_EQ(matcher.Finish(), "");
}

// Small alphabets, so that borders and overlaps are the rule.
TEST(StopMatcher, AgreesWithTheOracleHoweverTheTextIsCut) {
  std::mt19937 random(1);
  auto below = [&](size_t n) { return static_cast<size_t>(random()) % n; };
  auto word = [&](size_t longest) {
    std::string text(1 + below(longest), ' ');
    for (char& c : text) c = static_cast<char>('a' + below(2));
    return text;
  };
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops(1 + below(4));
    for (std::string& stop : stops) stop = word(8);
    const std::string text = word(24);
    StopMatcher matcher(stops);
    std::string out;
    for (size_t at = 0; at < text.size();) {
      const size_t n = std::min(text.size() - at, below(4));
      out += matcher.Push(text.substr(at, n));
      at += n;
      // Nothing is held longer than it must be.
      if (!matcher.stopped() && !EndsOpen(text.substr(0, at), stops)) {
        EXPECT_EQ(out, text.substr(0, at));
      }
    }
    if (!matcher.stopped()) out += matcher.Finish();
    const Result expected = Oracle(text, stops);
    ASSERT_EQ(out, expected.text) << text;
    ASSERT_EQ(matcher.stopped(), expected.stopped) << text;
  }
}

}  // namespace
}  // namespace switchyard::worker
