#include "common/secret_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "tests/support/temp_dir.h"

namespace switchyard {
namespace {

class SecretFileTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& text, mode_t mode = 0600) {
    const std::string path = directory_ / "secret";
    std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
    EXPECT_EQ(::chmod(path.c_str(), mode), 0);
    return path;
  }
  testing::TempDir directory_;
};

TEST_F(SecretFileTest, IsNotForEveryone) {
  EXPECT_EQ(*ReadSecretFile(Write("key\n", 0600)), "key\n");
  EXPECT_EQ(*ReadSecretFile(Write("key\n", 0640)), "key\n");
  for (mode_t mode : {0604, 0602, 0666}) {
    const auto read = ReadSecretFile(Write("key", mode));
    EXPECT_TRUE(absl::IsFailedPrecondition(read.status())) << mode << read.status();
    EXPECT_NE(read.status().message().find("chmod"), absl::string_view::npos);
  }
  EXPECT_TRUE(absl::IsNotFound(ReadSecretFile(directory_ / "none").status()));
  EXPECT_FALSE(ReadSecretFile(directory_.path()).ok());
  EXPECT_FALSE(ReadSecretFile(Write(std::string(kMostSecretBytes + 1, 'x'))).ok());
}

TEST_F(SecretFileTest, ATokenIsOneLine) {
  EXPECT_EQ(*ReadTokenFile(Write("0123456789abcdef\n")), "0123456789abcdef");
  EXPECT_EQ(*ReadTokenFile(Write("  0123456789abcdef\r\n\n")), "0123456789abcdef");
  for (const std::string bad : {"", "\n", "tooshort", "0123456789abcdef 0123456789abcdef",
                                "0123456789abcdef\n0123456789abcdef", "0123456789abcde\xff"}) {
    const auto token = ReadTokenFile(Write(bad));
    EXPECT_TRUE(absl::IsInvalidArgument(token.status())) << bad;
    if (!bad.empty() && bad != "\n") {
      EXPECT_EQ(token.status().message().find(bad), absl::string_view::npos);
    }
  }
  EXPECT_FALSE(ReadTokenFile(Write(std::string(4097, 'x'))).ok());
}

TEST(SameSecret, IsEquality) {
  EXPECT_TRUE(SameSecret("abc", "abc"));
  for (const char* other : {"", "a", "ab", "abd", "xbc", "abcabc", "abcd", "ABC"}) {
    EXPECT_FALSE(SameSecret(other, "abc")) << other;
  }
  EXPECT_FALSE(SameSecret("", ""));  // no secret lets nobody in
  EXPECT_FALSE(SameSecret("abc", ""));
}

}  // namespace
}  // namespace switchyard
