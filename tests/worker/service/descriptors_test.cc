#include "worker/descriptors.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <utility>

#include "common/clock.h"
#include "common/unique_fd.h"

namespace switchyard::worker {
namespace {

TEST(Descriptors, OneThatComesTooLateIsClosed) {
  auto sockets = SocketPair();
  ASSERT_TRUE(sockets.ok());
  Descriptors descriptors(std::move(sockets->second));
  EXPECT_TRUE(absl::IsDeadlineExceeded(descriptors.Take(1, kMillisecond).status()));
  auto pipe = Pipe();
  ASSERT_TRUE(pipe.ok());
  ASSERT_TRUE(SendFd(sockets->first.get(), pipe->second.get(), 1).ok());
  pipe->second.Reset();
  char byte;  // the end of file comes when the last writing end is closed
  EXPECT_EQ(::read(pipe->first.get(), &byte, 1), 0);
}

TEST(Descriptors, WaitsAndKeeps) {
  auto sockets = SocketPair();
  ASSERT_TRUE(sockets.ok());
  Descriptors descriptors(std::move(sockets->second));
  auto pipe = Pipe();
  ASSERT_TRUE(pipe.ok());
  ASSERT_TRUE(SendFd(sockets->first.get(), pipe->first.get(), 2).ok());
  ASSERT_TRUE(SendFd(sockets->first.get(), pipe->second.get(), 1).ok());
  auto write_end = descriptors.Take(1, 10 * kSecond);
  ASSERT_TRUE(write_end.ok()) << write_end.status();
  EXPECT_TRUE(descriptors.Take(2, 10 * kSecond).ok());
  EXPECT_TRUE(absl::IsDeadlineExceeded(descriptors.Take(2, kMillisecond).status()));
  sockets->first.Reset();
  EXPECT_TRUE(absl::IsUnavailable(descriptors.Take(3, 10 * kSecond).status()));
}

}  // namespace
}  // namespace switchyard::worker
