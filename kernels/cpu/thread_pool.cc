// Spinning is short: a step's serial parts between two ops take a few microseconds, and where other
// processes want the cores, a thread that spins longer takes them from those it waits for.

#include "kernels/cpu/thread_pool.h"

#include <chrono>

namespace switchyard::kernels {
namespace {

constexpr auto kSpin = std::chrono::microseconds(50);

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits until `value` differs from `old`: spins first, then sleeps.
void WaitWhile(const std::atomic<uint32_t>& value, uint32_t old) {
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (value.load(std::memory_order_acquire) != old) return;
      Pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  workers_.reserve(threads - 1);
  for (int t = 1; t < threads; ++t) workers_.emplace_back([this, t] { Work(t); });
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(Function function, const void* job, int parts) {
  function_ = function;
  job_ = job;
  parts_ = parts;
  // Every worker answers every epoch, also the ones without a part: nobody may read the fields
  // above while the next Run writes them.
  pending_.store(static_cast<uint32_t>(workers_.size()), std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  function(job, 0);
  while (const uint32_t left = pending_.load(std::memory_order_acquire)) WaitWhile(pending_, left);
}

void ThreadPool::Work(int thread) {
  uint32_t seen = 0;
  while (true) {
    WaitWhile(epoch_, seen);
    seen = epoch_.load(std::memory_order_acquire);
    if (stop_) return;
    if (thread < parts_) function_(job_, thread);
    if (pending_.fetch_sub(1, std::memory_order_release) == 1) pending_.notify_one();
  }
}

}  // namespace switchyard::kernels
