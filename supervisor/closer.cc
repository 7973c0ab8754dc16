#include "supervisor/closer.h"

#include <utility>

namespace switchyard::supervisor {

Closer::~Closer() {
  {
    std::lock_guard lock(mutex_);
    ending_ = true;
    changed_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

void Closer::Close(UniqueFd fd) {
  std::lock_guard lock(mutex_);
  waiting_.push_back(std::move(fd));
  changed_.notify_one();
  if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
}

void Closer::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    UniqueFd fd = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    fd.Reset();
    lock.lock();
  }
}

}  // namespace switchyard::supervisor
