#include "supervisor/task_queue.h"

#include <utility>

namespace switchyard::supervisor {

TaskQueue::TaskQueue(std::function<void()> wake) : wake_(std::move(wake)) {}

void TaskQueue::WakeHome() {
  if (open_ && !owned_ && !waiting_.empty() && !std::exchange(woken_, true)) wake_();
}

void TaskQueue::Post(Task task) {
  std::lock_guard lock(mutex_);
  if (closed_) return;
  waiting_.push_back({std::move(task), true});
  WakeHome();
}

void TaskQueue::Dispatch(Task task) {
  std::unique_lock lock(mutex_);
  if (closed_) return;
  const bool here = open_ && !owned_ && waiting_.empty();
  waiting_.push_back({std::move(task), false});
  here ? RunAsOwner(lock) : WakeHome();
}

void TaskQueue::RunOrPost(Task task) {
  std::unique_lock lock(mutex_);
  if (closed_) return;
  waiting_.push_back({std::move(task), true});
  if (open_ && !owned_) RunAsOwner(lock);
}

void TaskQueue::RunHome() {
  std::unique_lock lock(mutex_);
  woken_ = false;
  if (open_ && !owned_) RunAsOwner(lock);
}

void TaskQueue::RunAsOwner(std::unique_lock<std::mutex>& lock) {
  const bool home = at_home();
  owned_ = true;
  // What these tasks add at home waits for the next turn: timers and descriptors come between.
  const size_t most = home ? waiting_.size() : kMostElsewhere;
  for (size_t done = 0; open_ && !waiting_.empty() && done < most; ++done) {
    if (!home && waiting_.front().home_only) break;
    Task task = std::move(waiting_.front().task);
    waiting_.pop_front();
    lock.unlock();
    task();
    task = nullptr;  // what it holds goes now, without the lock
    lock.lock();
  }
  owned_ = false;
  given_up_.notify_all();
  WakeHome();
}

void TaskQueue::Open() {
  std::lock_guard lock(mutex_);
  open_ = true;
  WakeHome();
}

void TaskQueue::Close() {
  std::lock_guard lock(mutex_);
  open_ = false;
  closed_ = true;
}

void TaskQueue::Wait() {
  std::unique_lock lock(mutex_);
  given_up_.wait(lock, [this] { return !owned_; });
  const auto left = std::move(waiting_);
  waiting_.clear();
  lock.unlock();  // what they hold goes without it
}

}  // namespace switchyard::supervisor
