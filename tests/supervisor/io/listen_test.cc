#include "supervisor/listen.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/support/temp_dir.h"

namespace switchyard::supervisor {
namespace {

TEST(Listen, RefusesAddressesThatOthersReach) {
  for (const char* wide : {"0.0.0.0", "192.168.1.1", "::", "fe80::1"}) {
    const absl::Status status = CheckLoopback({wide, 7411});
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << wide;
    EXPECT_NE(status.message().find("TLS"), absl::string_view::npos);
  }
  for (const char* good : {"127.0.0.1", "127.1.2.3", "localhost", "::1"}) {
    EXPECT_TRUE(CheckLoopback({good, 7411}).ok()) << good;
  }
  EXPECT_FALSE(CheckLoopback({"example.com", 1}).ok());
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
