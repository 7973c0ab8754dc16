#include "cli/names.h"

#include <gtest/gtest.h>

namespace switchyard::cli {
namespace {

TEST(Names, Models) {
  for (const std::string& name :
       {std::string("a"), std::string("9"), std::string("Qwen3-30B.A3B_x"), std::string(64, 'a')}) {
    EXPECT_TRUE(CheckModelName(name).ok()) << name;
  }
  for (const std::string& name :
       {std::string("-a"), std::string(".a"), std::string("_a"), std::string("a b"),
        std::string("a/b"), std::string("a\0b", 3), std::string("\xFF"), std::string("\xC3\xA9"),
        std::string("a\n"), std::string(65, 'a')}) {
    EXPECT_TRUE(absl::IsInvalidArgument(CheckModelName(name))) << name;
  }
  EXPECT_EQ(CheckModelName("").message(), "a model's name is empty");
}

TEST(Names, Addresses) {
  for (const char* address : {"127.0.0.1:7411", "localhost:1", "[::1]:65535", "a-b.example:80",
                              "unix:/run/s.sock", "unix:relative"}) {
    EXPECT_TRUE(CheckAddress(address).ok()) << address;
  }
  for (const char* address : {"", "foo", ":1", "foo:", "foo:0", "foo:65536", "foo:-1", "foo:+1",
                              "foo: 1", "foo:1x", "foo:99999999999999999999", "::1:7411", "[]:1",
                              "a b:1", "dns:///foo:1", "unix:", "\xFF:1"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(CheckAddress(address))) << address;
  }
  EXPECT_TRUE(CheckAddress("unix:" + std::string(107, 'p')).ok());
  EXPECT_FALSE(CheckAddress("unix:" + std::string(108, 'p')).ok());
}

}  // namespace
}  // namespace switchyard::cli
