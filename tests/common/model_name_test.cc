#include "common/model_name.h"

#include <gtest/gtest.h>

#include <string>

namespace switchyard {
namespace {

TEST(ModelName, MatchesThePattern) {
  for (const char* good : {"a", "9", "Qwen3-30B.A3B_x"}) EXPECT_TRUE(ValidModelName(good)) << good;
  for (const char* bad : {"", ".a", "-a", "a/b", "a b", "\xc3\xa4", "a\n"}) {
    EXPECT_FALSE(ValidModelName(bad)) << bad;
  }
  EXPECT_TRUE(ValidModelName(std::string(64, 'a')));
  EXPECT_FALSE(ValidModelName(std::string(65, 'a')));
}

}  // namespace
}  // namespace switchyard
