#include "cli/numbers.h"

#include <gtest/gtest.h>

namespace switchyard::cli {
namespace {

TEST(Numbers, AllOfTheTextIsOne) {
  EXPECT_EQ(*ParseNumber<int32_t>("-100"), -100);
  EXPECT_EQ(*ParseNumber<uint32_t>("4294967295"), 4294967295u);
  EXPECT_EQ(*ParseNumber<uint64_t>("18446744073709551615"), ~uint64_t{0});
  EXPECT_EQ(*ParseNumber<float>("0.25"), 0.25f);
  EXPECT_EQ(*ParseNumber<float>("-1e2"), -100.0f);
}

TEST(Numbers, NothingElseIs) {
  for (const char* text : {"", " ", "1 ", " 1", "+1", "1x", "0x10", "one", "1.", "1,2"}) {
    EXPECT_FALSE(ParseNumber<int32_t>(text).ok()) << text;
    EXPECT_FALSE(ParseNumber<uint64_t>(text).ok()) << text;
  }
  for (const char* text : {"", " ", "1 ", " 1", "x", "nan", "inf", "-inf", "1e99", "1,5"}) {
    EXPECT_FALSE(ParseNumber<float>(text).ok()) << text;
  }
}

TEST(Numbers, BeyondTheTypeIsRefusedNotWrapped) {
  EXPECT_FALSE(ParseNumber<uint64_t>("-1").ok());
  EXPECT_FALSE(ParseNumber<uint64_t>("18446744073709551616").ok());
  EXPECT_FALSE(ParseNumber<uint32_t>("4294967296").ok());
  EXPECT_FALSE(ParseNumber<int32_t>("2147483648").ok());
  EXPECT_EQ(ParseNumber<uint32_t>("-1").status().message(),
            "\"-1\" is not a whole number from 0 to 4294967295");
}

TEST(Numbers, IdsHaveNoGaps) {
  EXPECT_EQ(*ParseIds("1"), std::vector<int32_t>({1}));
  EXPECT_EQ(*ParseIds("0,2147483647,3"), std::vector<int32_t>({0, 2147483647, 3}));
  for (const char* text :
       {"", ",", "1,", ",1", "1,,2", "1, 2", "-1", "[1,2]", "1.5", "2147483648"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ParseIds(text).status())) << text;
  }
  EXPECT_EQ(ParseIds("1,,2").status().message(),
            "\"1,,2\" is not a list of token ids as 1,2,3: an id is missing");
  EXPECT_EQ(ParseIds("1,-2").status().message(),
            "\"1,-2\" is not a list of token ids as 1,2,3: an id is a whole number from 0 to "
            "2147483647");
}

}  // namespace
}  // namespace switchyard::cli
