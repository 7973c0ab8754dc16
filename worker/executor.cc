#include "worker/executor.h"

#include <chrono>
#include <utility>

namespace switchyard::worker {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

SteadyTime AtNanos(Nanos time) { return SteadyTime(std::chrono::nanoseconds(time)); }

}  // namespace

Executor::Executor(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

void Executor::PostAt(Nanos time, std::function<void()> task) {
  std::lock_guard lock(mutex_);
  if (stopped_) return;
  tasks_.push({time, posted_++, std::move(task)});
  changed_.notify_one();
}

void Executor::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
  // A task may own what must go before the executor does.
  std::lock_guard lock(mutex_);
  tasks_ = {};
}

void Executor::Run() {
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    if (tasks_.empty()) {
      changed_.wait(lock);
    } else if (AtNanos(tasks_.top().time) > std::chrono::steady_clock::now()) {
      changed_.wait_until(lock, AtNanos(tasks_.top().time));
    } else {
      // Moved, since a task may own a prompt; the place in the queue hangs on its time alone.
      std::function<void()> run = std::move(const_cast<Task&>(tasks_.top()).run);
      tasks_.pop();
      lock.unlock();
      run();
      run = nullptr;
      lock.lock();
    }
  }
}

}  // namespace switchyard::worker
