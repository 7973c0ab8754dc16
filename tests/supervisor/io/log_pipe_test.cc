#include "supervisor/log_pipe.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <regex>
#include <string>
#include <vector>

#include "common/log.h"

namespace switchyard::supervisor {
namespace {

class LogPipeTest : public ::testing::Test {
 protected:
  LogPipeTest() {
    auto pipe = Pipe();
    write_ = std::move(pipe->second);
    log_ = std::make_unique<LogPipe>(&loop_, "austen", std::move(pipe->first));
  }
  void Write(const std::string& text) {
    ASSERT_EQ(::write(write_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }

  EventLoop loop_;
  UniqueFd write_;
  std::unique_ptr<LogPipe> log_;
};

TEST_F(LogPipeTest, ForwardsLinesWithTheNameAndKeepsThem) {
  ::testing::internal::CaptureStderr();
  Write("one\ntw");
  log_->Drain();
  EXPECT_EQ(log_->last_lines(), (std::vector<std::string>{"one"}));
  Write("o\nthree");
  write_.Reset();  // the end of file ends the line
  log_->Drain();
  EXPECT_EQ(log_->last_lines(), (std::vector<std::string>{"one", "two", "three"}));
  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            "[austen] one\n[austen] two\n[austen] three\n");
}

TEST_F(LogPipeTest, KeepsTheLastTwentyLinesAndNoneTooLong) {
  ::testing::internal::CaptureStderr();
  for (int i = 0; i < 50; ++i) Write(std::to_string(i) + "\n");
  Write(std::string(10000, 'x') + "\n");
  log_->Drain();
  ::testing::internal::GetCapturedStderr();
  const auto lines = log_->last_lines();
  ASSERT_EQ(lines.size(), 20u);
  for (const std::string& line : lines) EXPECT_LE(line.size(), 4000u);
}

TEST_F(LogPipeTest, TakesNoMoreAtOnceThanAPipeHolds) {
  ASSERT_GE(::fcntl(write_.get(), F_SETPIPE_SZ, 1 << 20), 1 << 20);
  for (int i = 0; i < 512; ++i) Write(std::string(1023, 'x') + "\n");
  std::vector<size_t> taken;
  for (int turn = 0; turn < 8; ++turn) {
    ::testing::internal::CaptureStderr();
    log_->Drain();
    const std::string text = ::testing::internal::GetCapturedStderr();
    taken.push_back(std::count(text.begin(), text.end(), '\n'));
  }
  EXPECT_EQ(taken, std::vector<size_t>(8, 64));
}

TEST_F(LogPipeTest, DoesNotWaitForAStandardErrorThatTakesNothing) {
  auto full = Pipe();
  ASSERT_TRUE(full.ok());
  UniqueFd before(::dup(STDERR_FILENO));
  ::dup2(full->second.get(), STDERR_FILENO);
  full->second.Reset();
  std::string told;
  {
    BackgroundLog log;
    // More than a pipe holds, and what may wait for it.
    for (int i = 0; i < 1024; ++i) {
      Write(std::string(1023, 'x') + "\n");
      log_->Drain();
    }
    EXPECT_EQ(log_->last_lines().back(), std::string(1023, 'x'));
    std::string taken(64 << 10, '\0');
    while (told.find("lost") == std::string::npos) {
      const ssize_t got = ::read(full->first.get(), taken.data(), taken.size());
      ASSERT_GT(got, 0);
      told = taken.substr(0, got);
      Write("seen\n");
      log_->Drain();
    }
    ::dup2(before.get(), STDERR_FILENO);
  }
  EXPECT_TRUE(std::regex_search(
      told, std::regex("\\[austen\\] \\(\\d+ lines lost: standard error took no more\\)\n")))
      << told;
}

}  // namespace
}  // namespace switchyard::supervisor
