#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <queue>
#include <thread>
#include <vector>

#include "common/clock.h"

namespace switchyard::worker {

// Threads that run what is posted, in order (with one thread), or at a time.
class Executor {
 public:
  explicit Executor(int threads);
  ~Executor() { Stop(); }
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Dropped after Stop.
  void Post(std::function<void()> task) { PostAt(0, std::move(task)); }
  // Not before `time` of the steady clock.
  void PostAt(Nanos time, std::function<void()> task);
  // Waits for tasks that run; those that have not begun are dropped. Not from a task.
  void Stop();

 private:
  struct Task {
    Nanos time;
    uint64_t number;
    std::function<void()> run;
    // std::priority_queue has the largest at the top.
    bool operator<(const Task& other) const {
      return time != other.time ? time > other.time : number > other.number;
    }
  };
  void Run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::priority_queue<Task> tasks_;
  uint64_t posted_ = 0;
  bool stopped_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace switchyard::worker
