#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "absl/functional/any_invocable.h"

namespace switchyard::supervisor {

// What takes too long for a task of the event loop: runs one after the other, in order, on a thread
// of its own.
class Background {
 public:
  using Work = absl::AnyInvocable<void()>;

  Background() = default;
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;
  ~Background() { Stop(); }

  // From any thread. Dropped after Stop.
  void Post(Work work);
  // Does what is left, and ends the thread.
  void Stop();

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Work> waiting_;
  bool ending_ = false;
  std::thread thread_;  // once there was something to do
};

}  // namespace switchyard::supervisor
