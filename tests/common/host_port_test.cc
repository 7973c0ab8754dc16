#include "common/host_port.h"

#include <gtest/gtest.h>

namespace switchyard {
namespace {

TEST(HostPort, ParsesAddresses) {
  auto v4 = ParseHostPort("127.0.0.1:7411");
  ASSERT_TRUE(v4.ok());
  EXPECT_EQ(v4->host, "127.0.0.1");
  EXPECT_EQ(v4->port, 7411);
  auto v6 = ParseHostPort("[::1]:0");
  ASSERT_TRUE(v6.ok());
  EXPECT_EQ(v6->host, "::1");
  EXPECT_EQ(FormatHostPort(*v6), "[::1]:0");
  EXPECT_TRUE(ParseHostPort("[fe80::1%eth0]:1").ok());
  EXPECT_TRUE(ParseHostPort("my-host_1.local:1").ok());
}

TEST(HostPort, RefusesWhatIsNone) {
  for (const char* bad :
       {"", "7411", ":7411", "host:", "host:x", "host:65536", "host:-1", "host:+1", "host: 1",
        "[]:1", "::1:1", "a b:1", "http://host:1", "host/x:1", "\xff:1"}) {
    const auto parsed = ParseHostPort(bad);
    EXPECT_TRUE(absl::IsInvalidArgument(parsed.status())) << bad;
  }
}

}  // namespace
}  // namespace switchyard
