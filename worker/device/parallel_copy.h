#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace switchyard::worker {

// memcpy by several threads. One copy at a time; callers on several threads take turns.
class ParallelCopy {
 public:
  explicit ParallelCopy(int threads);  // 0: one per usable core
  ~ParallelCopy();
  ParallelCopy(const ParallelCopy&) = delete;
  ParallelCopy& operator=(const ParallelCopy&) = delete;

  // Returns when all bytes are there. Small copies are done by the caller alone.
  void Copy(void* to, const void* from, uint64_t bytes);

 private:
  struct Job {
    std::byte* to = nullptr;
    const std::byte* from = nullptr;
    uint64_t bytes = 0;
    uint64_t next = 0;     // first byte that nobody has taken
    uint64_t pending = 0;  // bytes not copied yet
  };

  void Help();
  // Copies pieces until none is left to take. Called and returns with `lock` held.
  void TakePieces(std::unique_lock<std::mutex>& lock);

  std::mutex turn_;  // held by the caller whose copy it is
  std::mutex mu_;
  std::condition_variable work_, done_;
  Job job_;
  bool stop_ = false;
  std::vector<std::thread> helpers_;
};

}  // namespace switchyard::worker
