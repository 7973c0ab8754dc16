#include "common/json.h"

#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace switchyard {
namespace {

TEST(ParseJson, ReadsValidText) {
  auto json = ParseJson(R"({"a": [1, 2.5, "x"], "b": {"a": null}})", "file");
  ASSERT_TRUE(json.ok()) << json.status();
  EXPECT_EQ((*json)["a"][0], 1);
}

TEST(ParseJson, RefusesBadText) {
  for (const char* text : {"", "{", "{\"a\":}", "[1,]", "nul", "\xff", "{\"a\":1} x", "\"\xc3\""}) {
    auto json = ParseJson(text, "file.json");
    EXPECT_EQ(json.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_EQ(json.status().message().substr(0, 10), "file.json:");
  }
}

TEST(ParseJson, RefusesDuplicateKeys) {
  EXPECT_FALSE(ParseJson(R"({"a": 1, "b": {"c": 1}, "a": 2})", "f").ok());
  EXPECT_TRUE(ParseJson(R"({"a": {"a": 1}, "b": {"a": 1}})", "f").ok());
  EXPECT_TRUE(ParseJson(R"([{"a": 1}, {"a": 1}])", "f").ok());
}

TEST(ParseJson, MessagesAreShort) {
  const std::string key(10'000, 'k');
  const auto json = ParseJson("{\"" + key + "\": 1, \"" + key + "\": 2, \"b\": [{}, 3]}", "f");
  EXPECT_EQ(json.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_LT(json.status().message().size(), 300u);
  EXPECT_NE(json.status().message().find("stands twice"), absl::string_view::npos);
}

TEST(ParseJson, RefusesDeepNesting) {
  EXPECT_TRUE(ParseJson(std::string(100, '[') + std::string(100, ']'), "f").ok());
  EXPECT_FALSE(ParseJson(std::string(1'000'000, '['), "f").ok());
  EXPECT_FALSE(ParseJson(std::string(100'000, '[') + std::string(100'000, ']'), "f").ok());
}

TEST(ParseJson, RefusesHugeText) { EXPECT_FALSE(ParseJson("[1, 2, 3]", "f", 4).ok()); }

TEST(ReadFile, SaysWhatIsWrong) {
  EXPECT_EQ(ReadFile("/nonexistent/file", 100).status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(ReadFile("/tmp", 100).ok());
}

// Opening one to read waits for somebody who writes.
TEST(ReadFile, RefusesAFifoAtOnce) {
  const std::string path = testing::TempDir() + "/fifo_" + std::to_string(::getpid());
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const auto read = ReadFile(path, 100);
  ::unlink(path.c_str());
  EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument) << read.status();
}

}  // namespace
}  // namespace switchyard
