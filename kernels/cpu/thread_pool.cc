// Spinning is short: a step's serial parts between two ops take a few microseconds, and where other
// processes want the cores, a thread that spins longer takes them from those it waits for.

#include "kernels/cpu/thread_pool.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>

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

// Not std::atomic's own wait and notify: before it sleeps, libstdc++'s calls sched_yield several
// times, each of which may cost a slice of time where other processes want the cores: a model that
// writes 1,000 tokens/s by itself wrote 20 beside a build.
void Sleep(const std::atomic<uint32_t>& value, uint32_t old) {
  static_assert(sizeof(value) == 4);
  ::syscall(SYS_futex, &value, FUTEX_WAIT_PRIVATE, old, nullptr, nullptr, 0);
}
void Wake(const std::atomic<uint32_t>& value) {
  ::syscall(SYS_futex, &value, FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

}  // namespace

// Waits until `value` differs from `old`: spins first, then sleeps.
void ThreadPool::WaitWhile(const std::atomic<uint32_t>& value, uint32_t old) {
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (value.load(std::memory_order_acquire) != old) return;
      Pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  // Whoever changes the value looks at sleepers_ afterwards: one of us sees the other.
  sleepers_.fetch_add(1);
  while (value.load() == old) Sleep(value, old);
  sleepers_.fetch_sub(1);
}

// The value has changed.
void ThreadPool::WakeAll(const std::atomic<uint32_t>& value) {
  if (sleepers_.load() > 0) Wake(value);
}

ThreadPool::ThreadPool(int threads) {
  workers_.reserve(threads - 1);
  for (int t = 1; t < threads; ++t) workers_.emplace_back([this, t] { Work(t); });
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  epoch_.fetch_add(1);
  WakeAll(epoch_);
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(Function function, const void* job, int parts) {
  function_ = function;
  job_ = job;
  parts_ = parts;
  // Every worker answers every epoch, also the ones without a part: nobody may read the fields
  // above while the next Run writes them.
  pending_.store(static_cast<uint32_t>(workers_.size()), std::memory_order_relaxed);
  epoch_.fetch_add(1);
  WakeAll(epoch_);
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
    if (pending_.fetch_sub(1) == 1) WakeAll(pending_);
  }
}

}  // namespace switchyard::kernels
