#include "common/log_writer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/log.h"
#include "common/unique_fd.h"

namespace switchyard {
namespace {

constexpr Nanos kLong = 60 * kSecond;

class LogWriterTest : public ::testing::Test {
 protected:
  LogWriterTest() {
    auto pipe = Pipe();
    read_ = std::move(pipe->first);
    write_ = std::move(pipe->second);
  }
  std::string Read() {
    std::string text(1 << 20, '\0');
    const ssize_t got = ::read(read_.get(), text.data(), text.size());
    text.resize(got > 0 ? got : 0);
    return text;
  }
  // Until the pipe takes nothing.
  void Fill() {
    UniqueFd filling(
        ::open(absl::StrCat("/proc/self/fd/", write_.get()).c_str(), O_WRONLY | O_NONBLOCK));
    const std::string block(4096, '.');
    while (::write(filling.get(), block.data(), block.size()) > 0) {
    }
  }
  void ReadWhatFills() {
    size_t left = ::fcntl(write_.get(), F_GETPIPE_SZ);
    while (left > 0) left -= Read().size();
  }

  UniqueFd read_, write_;
};

TEST_F(LogWriterTest, WithoutItsThreadALineIsWrittenAtOnce) {
  LogWriter writer(write_.get(), 0);
  writer.Write("one\n");
  EXPECT_TRUE(writer.Forward("two\n"));
  EXPECT_EQ(Read(), "one\ntwo\n");
}

TEST_F(LogWriterTest, ALineThatIsReadIsOutWhenWriteReturns) {
  LogWriter writer(write_.get(), kLong);
  writer.Start();
  for (int i = 0; i < 100; ++i) {
    const std::string line = absl::StrCat(i, "\n");
    writer.Write(line);
    EXPECT_EQ(Read(), line);
  }
  EXPECT_TRUE(writer.Stop(kLong));
}

TEST_F(LogWriterTest, LinesKeepTheirOrderToTheEnd) {
  LogWriter writer(write_.get(), 0);
  writer.Start();
  std::string all;
  for (int i = 0; i < 1000; ++i) {
    const std::string line = absl::StrCat(i, "\n");
    i % 2 == 0 ? writer.Write(line) : void(writer.Forward(line));
    all += line;
  }
  EXPECT_TRUE(writer.Stop(kLong));
  EXPECT_EQ(Read(), all);
  writer.Write("later\n");
  EXPECT_EQ(Read(), "later\n");
}

TEST_F(LogWriterTest, NobodyWaitsForAReaderAndWhatIsLostIsCounted) {
  Fill();
  LogWriter writer(write_.get(), kMillisecond);
  writer.Start();
  const std::string line = std::string(1023, 'x') + "\n";
  size_t forwarded = 0;
  while (writer.Forward(line)) ++forwarded;
  EXPECT_EQ(forwarded, LogWriter::kMostWaiting / 2 / line.size());
  const size_t written = LogWriter::kMostWaiting / line.size() - forwarded;
  for (size_t i = 0; i < written + 3; ++i) writer.Write(line);
  EXPECT_FALSE(writer.Flush(0));
  ReadWhatFills();
  std::string text;
  for (size_t i = 0; i < forwarded + written; ++i) text += line;
  text += "(3 lines lost: standard error took no more)\n";
  std::string got;
  while (got.size() < text.size()) got += Read();
  EXPECT_TRUE(got == text) << got.substr(got.size() - 200);
  EXPECT_TRUE(writer.Flush(kLong));
  writer.Write("next\n");
  EXPECT_EQ(Read(), "next\n");
  EXPECT_TRUE(writer.Stop(kLong));
}

TEST_F(LogWriterTest, StopDoesNotWaitForAReader) {
  Fill();
  LogWriter writer(write_.get(), 0);
  writer.Start();
  writer.Write("last\n");
  EXPECT_FALSE(writer.Stop(kMillisecond));
  ReadWhatFills();
  EXPECT_EQ(Read(), "last\n");
  EXPECT_TRUE(writer.Stop(kLong));
}

// Another process may make what it shares with us non-blocking.
TEST_F(LogWriterTest, ADescriptorThatDoesNotBlockLosesNothing) {
  ASSERT_EQ(::fcntl(write_.get(), F_SETFL, O_NONBLOCK), 0);
  Fill();
  LogWriter writer(write_.get(), 0);
  writer.Start();
  writer.Write("one\n");
  ReadWhatFills();
  EXPECT_EQ(Read(), "one\n");
  EXPECT_TRUE(writer.Stop(kLong));
}

TEST(LogDeathTest, ABrokenInvariantComesBehindAllLines) {
  EXPECT_DEATH(
      {
        InitLog("test");
        BackgroundLog log;
        LogWarning("before");
        SY_CHECK(1 > 2);
      },
      "warning test: before\n.*broken invariant: 1 > 2");
}

}  // namespace
}  // namespace switchyard
