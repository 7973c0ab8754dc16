#include "supervisor/log_pipe.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

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
  for (const std::string& line : lines) EXPECT_LE(line.size(), 4096u);
}

}  // namespace
}  // namespace switchyard::supervisor
