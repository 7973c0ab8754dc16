#include <liburing.h>

#include <cerrno>
#include <cstring>

#include "common/check.h"
#include "worker/io/file_reads.h"

namespace switchyard::worker {
namespace {

class UringReads final : public FileReads {
 public:
  ~UringReads() override {
    if (!open_) return;
    while (on_their_way_ > 0) Await();
    io_uring_queue_exit(&ring_);
  }

  // False where it is refused: EPERM or ENOSYS of containers, ENOMEM of a small RLIMIT_MEMLOCK.
  bool Open(size_t depth) {
    open_ = io_uring_queue_init(static_cast<unsigned>(depth), &ring_, 0) == 0;
    return open_;
  }

  void Start(const Read& read) override {
    io_uring_sqe* const entry = io_uring_get_sqe(&ring_);
    SY_CHECK(entry != nullptr);  // more were started than it was made for
    io_uring_prep_read(entry, read.fd, read.to, static_cast<unsigned>(read.bytes), read.offset);
    entry->user_data = read.tag;
    ++on_their_way_;
    Submit();
  }

  Ended Await() override {
    io_uring_cqe* done = nullptr;
    while (true) {
      Submit();  // what the kernel would not take before
      const int status = io_uring_wait_cqe(&ring_, &done);
      if (status == 0) break;
      SY_CHECK(status == -EINTR || status == -EAGAIN || status == -EBUSY);
    }
    const Ended ended = {done->user_data, done->res};
    io_uring_cqe_seen(&ring_, done);
    --on_their_way_;
    return ended;
  }

  bool together() const override { return true; }

 private:
  void Submit() {
    while (io_uring_sq_ready(&ring_) > 0) {
      const int status = io_uring_submit(&ring_);
      if (status == -EINTR) continue;
      // Too much on its way, or no memory for a moment: waiting for one that ends makes room.
      if ((status == -EAGAIN || status == -EBUSY) && on_their_way_ > io_uring_sq_ready(&ring_)) {
        return;
      }
      SY_CHECK(status >= 0 || status == -EAGAIN || status == -EBUSY);
    }
  }

  io_uring ring_ = {};
  bool open_ = false;
  size_t on_their_way_ = 0;
};

}  // namespace

std::unique_ptr<FileReads> MakeUringReads(size_t depth) {
  auto reads = std::make_unique<UringReads>();
  if (!reads->Open(depth)) return nullptr;
  return reads;
}

}  // namespace switchyard::worker
