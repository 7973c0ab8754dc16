#include "supervisor/listen.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/support/temp_dir.h"

namespace switchyard::supervisor {
namespace {

TEST(Listen, RefusesAddressesThatOthersReachUnlessTheyAreSecured) {
  for (const char* wide : {"0.0.0.0", "192.168.1.1", "::", "fe80::1"}) {
    const absl::Status status = CheckListen({wide, 7411}, false);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << wide;
    EXPECT_NE(status.message().find("--tls-certificate"), absl::string_view::npos);
    EXPECT_TRUE(CheckListen({wide, 7411}, true).ok()) << wide;
  }
  for (const char* good : {"127.0.0.1", "127.1.2.3", "localhost", "::1"}) {
    EXPECT_TRUE(CheckListen({good, 7411}, false).ok()) << good;
  }
  EXPECT_FALSE(CheckListen({"example.com", 1}, true).ok());
  HostPort wide{"0.0.0.0", 0};
  EXPECT_FALSE(ListenTcp(&wide).ok());
}

TEST(Listen, TellsThePortItGot) {
  HostPort address{"127.0.0.1", 0};
  auto fd = ListenTcp(&address);
  ASSERT_TRUE(fd.ok());
  EXPECT_NE(address.port, 0);
  HostPort taken = address;
  EXPECT_FALSE(ListenTcp(&taken).ok());
}

TEST(Listen, UnixSocketReplacesADeadOneAndIsForTheGroup) {
  testing::TempDir directory;
  const std::string path = directory / "socket";
  ASSERT_TRUE(ListenUnix(path).ok());
  auto again = ListenUnix(path);
  ASSERT_TRUE(again.ok()) << again.status();
  struct stat info {};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0660u);
  EXPECT_FALSE(ListenUnix(directory / std::string(200, 'x')).ok());
}

}  // namespace
}  // namespace switchyard::supervisor
