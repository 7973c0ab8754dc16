#include "common/unique_fd.h"

#include <fcntl.h>
#include <unistd.h>

#include <gtest/gtest.h>

namespace switchyard {
namespace {

bool IsOpen(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

TEST(UniqueFd, ClosesOnce) {
  auto pipe = Pipe();
  ASSERT_TRUE(pipe.ok());
  int fd = pipe->first.get();
  {
    UniqueFd moved = std::move(pipe->first);
    EXPECT_FALSE(pipe->first.valid());
    EXPECT_TRUE(IsOpen(fd));
  }
  EXPECT_FALSE(IsOpen(fd));
}

TEST(SendFd, CarriesDescriptorAndTag) {
  auto sockets = SocketPair();
  auto pipe = Pipe();
  ASSERT_TRUE(sockets.ok() && pipe.ok());
  ASSERT_TRUE(SendFd(sockets->first.get(), pipe->second.get(), 42).ok());
  ASSERT_TRUE(SendFd(sockets->first.get(), pipe->first.get(), 43).ok());
  auto got = ReceiveFd(sockets->second.get());
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->second, 42u);
  EXPECT_NE(::fcntl(got->first.get(), F_GETFD) & FD_CLOEXEC, 0);
  ASSERT_EQ(::write(got->first.get(), "x", 1), 1);
  char c = 0;
  ASSERT_EQ(::read(pipe->first.get(), &c, 1), 1);
  EXPECT_EQ(c, 'x');
  EXPECT_EQ(ReceiveFd(sockets->second.get())->second, 43u);
}

TEST(ReceiveFd, TellsThatThePeerIsGone) {
  auto sockets = SocketPair();
  sockets->first.Reset();
  EXPECT_EQ(ReceiveFd(sockets->second.get()).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(SendFd(sockets->second.get(), sockets->second.get(), 1).ok());
}

TEST(ReceiveFd, RefusesAMessageWithoutADescriptor) {
  auto sockets = SocketPair();
  ASSERT_EQ(::write(sockets->first.get(), "12345678", 8), 8);
  EXPECT_EQ(ReceiveFd(sockets->second.get()).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace switchyard
