#include "worker/io/file_reads.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <vector>

#include "common/unique_fd.h"
#include "tests/worker/io/checkpoint_writer.h"

namespace switchyard::worker {
namespace {

class FileReadsTest : public testing::TestWithParam<bool> {
 protected:
  FileReadsTest() {
    for (int i = 0; i < 100'000; ++i) text_ += static_cast<char>('a' + i % 23);
    WriteText(dir_ / "file", text_);
    file_ = UniqueFd(::open((dir_ / "file").c_str(), O_RDONLY | O_CLOEXEC));
  }
  void SetUp() override {
    reads_ = GetParam() ? MakeUringReads(8) : MakePreads();
    if (reads_ == nullptr) GTEST_SKIP() << "io_uring is refused here";
  }
  FileReads::Read Read(uint64_t tag, uint64_t offset, uint64_t bytes) {
    buffers_.resize(std::max<size_t>(buffers_.size(), tag + 1));
    buffers_[tag].resize(bytes);
    return {file_.get(), offset, reinterpret_cast<std::byte*>(buffers_[tag].data()), bytes, tag};
  }

  TempDir dir_;
  std::string text_;
  UniqueFd file_;
  std::vector<std::string> buffers_{8};
  std::unique_ptr<FileReads> reads_;
};

TEST_P(FileReadsTest, EveryReadEndsOnceWithItsBytes) {
  EXPECT_EQ(reads_->together(), GetParam());
  for (uint64_t round = 0; round < 3; ++round) {
    for (uint64_t tag = 0; tag < 8; ++tag) reads_->Start(Read(tag, tag * 9000 + round, 8000));
    std::vector<uint64_t> seen;
    for (int i = 0; i < 8; ++i) {
      const FileReads::Ended ended = reads_->Await();
      ASSERT_EQ(ended.result, 8000);
      EXPECT_EQ(buffers_[ended.tag], text_.substr(ended.tag * 9000 + round, 8000));
      seen.push_back(ended.tag);
    }
    std::sort(seen.begin(), seen.end());
    EXPECT_EQ(seen, (std::vector<uint64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  }
}

TEST_P(FileReadsTest, TheEndOfTheFileIsAShortReadAndErrorsAreNegative) {
  reads_->Start(Read(0, text_.size() - 10, 100));
  EXPECT_EQ(reads_->Await().result, 10);
  FileReads::Read bad = Read(1, 0, 10);
  bad.fd = -1;
  reads_->Start(bad);
  const FileReads::Ended ended = reads_->Await();
  EXPECT_EQ(ended.tag, 1u);
  EXPECT_EQ(ended.result, -EBADF);
}

TEST_P(FileReadsTest, MayGoWhileReadsAreOnTheirWay) {
  for (uint64_t tag = 0; tag < 8; ++tag) reads_->Start(Read(tag, 0, 90'000));
  reads_.reset();
}

INSTANTIATE_TEST_SUITE_P(Both, FileReadsTest, testing::Values(true, false),
                         [](const auto& test) { return test.param ? "Uring" : "Pread"; });

// As the seccomp profiles of containers do it.
void RefuseUring(int error) {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<uint32_t>(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter = {static_cast<unsigned short>(std::size(program)), program};
  const bool done = ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
                    ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
  if (!done) std::_Exit(77);
}

TEST(FileReads, WhereIoUringIsForbiddenThereIsPread) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (const int error : {EPERM, ENOSYS}) {
    EXPECT_EXIT(
        {
          RefuseUring(error);
          const bool refused = MakeUringReads(8) == nullptr;
          const auto reads = MakeFileReads(8);
          std::_Exit(refused && !reads->together() ? 0 : 1);
        },
        testing::ExitedWithCode(0), "");
  }
}

}  // namespace
}  // namespace switchyard::worker
