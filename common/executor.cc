#include "common/executor.h"

#include <pthread.h>

#include <chrono>
#include <utility>

namespace switchyard {
namespace {

using SteadyTime = std::chrono::steady_clock::time_point;

SteadyTime AtNanos(Nanos time) { return SteadyTime(std::chrono::nanoseconds(time)); }

}  // namespace

Executor::Executor(int threads, const char* name) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this, name] { Run(name); });
}

Executor::Ticket Executor::PostAt(Nanos time, Task task) {
  std::lock_guard lock(mutex_);
  const Ticket ticket(time, posted_++);
  if (stopped_) return ticket;
  tasks_.emplace(ticket, std::move(task));
  changed_.notify_one();
  return ticket;
}

void Executor::Recall(const Ticket& ticket) {
  std::lock_guard lock(mutex_);
  tasks_.erase(ticket);
}

size_t Executor::size() const {
  std::lock_guard lock(mutex_);
  return tasks_.size();
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
  tasks_.clear();
}

void Executor::Run(const char* name) {
  if (name != nullptr) ::pthread_setname_np(::pthread_self(), name);
  std::unique_lock lock(mutex_);
  while (!stopped_) {
    if (tasks_.empty()) {
      changed_.wait(lock);
    } else if (const auto time = AtNanos(tasks_.begin()->first.first);
               time > std::chrono::steady_clock::now()) {
      changed_.wait_until(lock, time);
    } else {
      auto task = tasks_.extract(tasks_.begin());
      lock.unlock();
      task.mapped()();
      task = {};  // it may own a prompt
      lock.lock();
    }
  }
}

}  // namespace switchyard
