#include "supervisor/background.h"

#include <utility>

namespace switchyard::supervisor {

bool Background::Post(Work work) {
  std::lock_guard lock(mutex_);
  if (ending_ || waiting_.size() >= most_) return false;
  waiting_.push_back(std::move(work));
  changed_.notify_one();
  if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
  return true;
}

void Background::Stop() {
  {
    std::deque<Work> left;  // goes without the lock
    std::lock_guard lock(mutex_);
    ending_ = true;
    left.swap(waiting_);
    changed_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

void Background::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
    if (ending_) return;
    Work work = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    work();
    work = nullptr;
    lock.lock();
  }
}

}  // namespace switchyard::supervisor
