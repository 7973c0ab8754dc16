#include "worker/io/file_reads.h"

#include <unistd.h>

#include <cerrno>
#include <deque>

namespace switchyard::worker {
namespace {

class Preads final : public FileReads {
 public:
  void Start(const Read& read) override { started_.push_back(read); }

  Ended Await() override {
    const Read read = started_.front();
    started_.pop_front();
    while (true) {
      const ssize_t n = ::pread(read.fd, read.to, read.bytes, static_cast<off_t>(read.offset));
      if (n >= 0) return {read.tag, n};
      if (errno != EINTR) return {read.tag, -errno};
    }
  }

  bool together() const override { return false; }

 private:
  std::deque<Read> started_;
};

}  // namespace

std::unique_ptr<FileReads> MakePreads() { return std::make_unique<Preads>(); }

std::unique_ptr<FileReads> MakeFileReads(size_t depth) {
  std::unique_ptr<FileReads> reads = MakeUringReads(depth);
  return reads != nullptr ? std::move(reads) : MakePreads();
}

}  // namespace switchyard::worker
