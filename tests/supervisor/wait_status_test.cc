#include "supervisor/wait_status.h"

#include <gtest/gtest.h>

#include <csignal>

namespace switchyard::supervisor {
namespace {

constexpr int Exit(int status) { return status << 8; }

TEST(WaitStatus, WhatAPersonActsOnIsInTheFirstLine) {
  EXPECT_EQ(DescribeEnd(Exit(1), {"info: started", "/m/a.safetensors: cannot be opened"}),
            "ended with exit status 1: /m/a.safetensors: cannot be opened\n"
            "its last lines before that:\n"
            "info: started");
  EXPECT_EQ(DescribeEnd(SIGABRT, {"info: started", "a.cc:7: broken invariant: x > 0"}),
            "ended with signal 6 (Aborted): a.cc:7: broken invariant: x > 0\n"
            "its last lines before that:\n"
            "info: started");
}

TEST(WaitStatus, NothingIsSaidTwice) {
  EXPECT_EQ(DescribeEnd(Exit(1), {"no room", ""}), "ended with exit status 1: no room");
}

TEST(WaitStatus, WhoWasKilledDidNotSayWhy) {
  EXPECT_EQ(DescribeEnd(SIGKILL, {"info: all is well"}),
            "ended with signal 9 (Killed)\nits last lines:\ninfo: all is well");
  EXPECT_EQ(DescribeEnd(Exit(0), {"info: told to end"}),
            "ended with exit status 0\nits last lines:\ninfo: told to end");
}

TEST(WaitStatus, WhatWasWellIsNoReason) {
  const std::string confined = "2026-01-31 12:00:00.000 info worker a: sandbox: confined";
  const std::string slow = "2026-01-31 12:00:00.001 warning worker a: the disk is slow";
  EXPECT_EQ(DescribeEnd(SIGKILL, {confined}), "ended with signal 9 (Killed)");
  EXPECT_EQ(
      DescribeEnd(SIGABRT, {slow, "terminate called", confined}),
      "ended with signal 6 (Aborted): terminate called\nits last lines before that:\n" + slow);
  EXPECT_EQ(DescribeEnd(SIGSEGV, {confined, "info: of no log", slow}),
            "ended with signal 11 (Segmentation fault)\nits last lines:\ninfo: of no log\n" + slow);
}

TEST(WaitStatus, SilenceIsNoReason) {
  EXPECT_EQ(DescribeEnd(Exit(3), {}), "ended with exit status 3");
  EXPECT_EQ(DescribeEnd(Exit(3), {"", " "}), "ended with exit status 3");
}

}  // namespace
}  // namespace switchyard::supervisor
