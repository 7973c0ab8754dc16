#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
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

  // Takes so many at once, the one that runs not counted.
  explicit Background(size_t most = SIZE_MAX) : most_(most) {}
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;
  ~Background() { Stop(); }

  // From any thread. False: too many wait, or it has stopped.
  bool Post(Work work);
  // Ends the thread after the work that runs; what waits is destroyed.
  void Stop();

 private:
  void Run();

  const size_t most_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Work> waiting_;
  bool ending_ = false;
  std::thread thread_;  // once there was something to do
};

}  // namespace switchyard::supervisor
