#include "worker/device/parallel_copy.h"

#include <algorithm>
#include <cstring>

#include "common/usable_cores.h"

namespace switchyard::worker {
namespace {

// A huge page. Pieces end at multiples of it in the destination, so that each page is faulted in,
// cleared and filled by one thread while it is in that thread's cache.
constexpr uint64_t kPiece = 2 << 20;

uint64_t PieceBytes(const std::byte* to, uint64_t left) {
  const uint64_t to_border = kPiece - reinterpret_cast<uintptr_t>(to) % kPiece;
  return std::min(left, to_border);
}

}  // namespace

ParallelCopy::ParallelCopy(int threads) {
  if (threads <= 0) threads = UsableCores();
  for (int i = 1; i < threads; ++i) helpers_.emplace_back([this] { Help(); });
}

ParallelCopy::~ParallelCopy() {
  {
    std::lock_guard<std::mutex> lock(mu_);
    stop_ = true;
  }
  work_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void ParallelCopy::Copy(void* to, const void* from, uint64_t bytes) {
  if (bytes <= kPiece || helpers_.empty()) {
    if (bytes > 0) std::memcpy(to, from, bytes);
    return;
  }
  std::lock_guard<std::mutex> turn(turn_);
  std::unique_lock<std::mutex> lock(mu_);
  job_ = {static_cast<std::byte*>(to), static_cast<const std::byte*>(from), bytes, 0, bytes};
  work_.notify_all();
  TakePieces(lock);
  done_.wait(lock, [this] { return job_.pending == 0; });
}

void ParallelCopy::Help() {
  std::unique_lock<std::mutex> lock(mu_);
  while (true) {
    work_.wait(lock, [this] { return stop_ || job_.next < job_.bytes; });
    if (stop_) return;
    TakePieces(lock);
  }
}

void ParallelCopy::TakePieces(std::unique_lock<std::mutex>& lock) {
  while (job_.next < job_.bytes) {
    std::byte* const to = job_.to + job_.next;
    const std::byte* const from = job_.from + job_.next;
    const uint64_t bytes = PieceBytes(to, job_.bytes - job_.next);
    job_.next += bytes;
    lock.unlock();
    std::memcpy(to, from, bytes);
    lock.lock();
    job_.pending -= bytes;
    if (job_.pending == 0) done_.notify_one();
  }
}

}  // namespace switchyard::worker
