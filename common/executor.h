#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "common/clock.h"

namespace switchyard {

// Threads that run what is posted, in order (with one thread), or at a time.
class Executor {
 public:
  // `name`, of 15 letters at most, is what people see of the threads.
  explicit Executor(int threads, const char* name = nullptr);
  ~Executor() { Stop(); }
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // A task's place in the queue, and its name.
  using Ticket = std::pair<Nanos, uint64_t>;

  using Task = absl::AnyInvocable<void()>;

  // Dropped after Stop.
  void Post(Task task) { PostAt(0, std::move(task)); }
  // Not before `time` of the steady clock.
  Ticket PostAt(Nanos time, Task task);
  // Drops a task that has not begun; no harm if it has.
  void Recall(const Ticket& ticket);
  // Tasks that have not begun.
  size_t size() const;
  // Waits for tasks that run; those that have not begun are dropped. Not from a task.
  void Stop();

 private:
  void Run(const char* name);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<Ticket, Task> tasks_;
  uint64_t posted_ = 0;
  bool stopped_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace switchyard
