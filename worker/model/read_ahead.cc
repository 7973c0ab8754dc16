#include "worker/model/read_ahead.h"

#include <algorithm>

#include "common/usable_cores.h"

namespace switchyard::worker {
namespace {

// On their way at once: enough for a row of disks, and a small part of any master.
constexpr size_t kTogether = 64;
// Threads that wait for reads and take the digests of what arrives, a few GB/s each.
constexpr size_t kThreads = 8;
// Where a thread reads one block after the other.
constexpr size_t kWaitingThreads = 16;

}  // namespace

ReadAhead::ReadAhead(const ImageBlocks& image, uint64_t first, uint64_t end,
                     std::span<std::byte> ring)
    : image_(image),
      ring_(ring),
      slots_(CeilDiv(ring.size(), kChecksumBlock)),
      end_(end),
      done_(slots_),
      next_(first),
      leading_(first),
      released_(first) {
  const size_t most = std::min<uint64_t>(slots_, end - first);
  const size_t threads = std::min(
      most, image.together() ? std::min<size_t>(UsableCores(), kThreads) : kWaitingThreads);
  const size_t depth =
      image.together() ? std::min(most, kTogether) / std::max<size_t>(threads, 1) : size_t{1};
  for (size_t i = 0; i < threads; ++i) threads_.emplace_back([this, depth] { Work(depth); });
}

ReadAhead::~ReadAhead() {
  {
    std::lock_guard lock(mu_);
    stop_ = true;
  }
  room_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

absl::StatusOr<uint64_t> ReadAhead::Await(uint64_t block, const std::function<bool()>& wanted) {
  std::unique_lock lock(mu_);
  while (leading_ <= block) {
    if (leading_ == failed_) return status_;  // those before it still come
    if (!wanted()) return absl::CancelledError("the image is not wanted any more");
    arrived_.wait(lock);
  }
  return leading_;
}

void ReadAhead::Wake() {
  std::lock_guard lock(mu_);
  arrived_.notify_all();
}

void ReadAhead::Release(uint64_t block) {
  std::lock_guard lock(mu_);
  if (block <= released_) return;
  released_ = block;
  room_.notify_all();
}

bool ReadAhead::MayTake() const {
  return !stop_ && status_.ok() && next_ < end_ && next_ < released_ + slots_;
}

void ReadAhead::Work(size_t depth) {
  const std::unique_ptr<BlockReads> reads = image_.Open(depth);
  size_t on_their_way = 0;
  std::unique_lock lock(mu_);
  while (true) {
    while (on_their_way < depth && MayTake()) {
      const uint64_t block = next_++;
      lock.unlock();
      reads->Start(block, SlotOf(block));
      lock.lock();
      ++on_their_way;
    }
    if (on_their_way == 0) {
      if (stop_ || !status_.ok() || next_ == end_) return;
      room_.wait(lock);
      continue;
    }
    lock.unlock();
    BlockReads::Done done = reads->Await();
    lock.lock();
    --on_their_way;
    if (!done.status.ok()) {
      if (done.block < failed_) {
        failed_ = done.block;
        status_ = std::move(done.status);
      }
      room_.notify_all();
    } else {
      done_[done.block % slots_] = true;
      while (leading_ < end_ && done_[leading_ % slots_]) done_[leading_++ % slots_] = false;
    }
    arrived_.notify_all();
  }
}

}  // namespace switchyard::worker
