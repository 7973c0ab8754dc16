#pragma once

// Fork and join for the ops: persistent threads and a static partition, so that thread t streams
// the same contiguous part of a weight matrix every step. The caller is thread 0. A worker spins
// for some tens of microseconds after its last job (the gaps between the ops of a step), then
// sleeps: an idle pool costs nothing.

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace switchyard::kernels {

class ThreadPool {
 public:
  // threads: at least 1, the caller.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls f(thread, begin, end) so that the ranges cover [0, n) once: one contiguous range a
  // thread, borders at multiples of `grain`, no thread for less than a grain. One caller at a time.
  template <class F>
  void ParallelFor(int64_t n, int64_t grain, const F& f) {
    if (n <= 0) return;
    const int64_t units = (n + grain - 1) / grain;
    const int parts = static_cast<int>(units < threads() ? units : threads());
    if (parts == 1) return f(0, int64_t{0}, n);
    const Job<F> job = {&f, n, grain, units, parts};
    Run(&Job<F>::Call, &job, parts);
  }

 private:
  template <class F>
  struct Job {
    const F* f;
    int64_t n, grain, units;
    int parts;
    static void Call(const void* self, int thread) {
      const Job& job = *static_cast<const Job*>(self);
      const int64_t begin = job.units * thread / job.parts * job.grain;
      const int64_t end = job.units * (thread + 1) / job.parts * job.grain;
      (*job.f)(thread, begin, end < job.n ? end : job.n);
    }
  };
  using Function = void (*)(const void* job, int thread);

  void Run(Function function, const void* job, int parts);
  void Work(int thread);
  void WaitWhile(const std::atomic<uint32_t>& value, uint32_t old);
  void WakeAll(const std::atomic<uint32_t>& value);

  // Written by the caller before `epoch_`, read by the workers after it.
  Function function_ = nullptr;
  const void* job_ = nullptr;
  int parts_ = 0;
  bool stop_ = false;
  alignas(64) std::atomic<uint32_t> epoch_{0};
  alignas(64) std::atomic<uint32_t> pending_{0};  // workers that have not finished this epoch
  alignas(64) std::atomic<uint32_t> sleepers_{0};
  std::vector<std::thread> workers_;
};

}  // namespace switchyard::kernels
