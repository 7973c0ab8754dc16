#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "common/unique_fd.h"

namespace switchyard::supervisor {

// Closes descriptors on a thread of its own. The last one of a memfd frees its memory before close
// returns, which takes seconds for a large model.
class Closer {
 public:
  Closer() = default;
  Closer(const Closer&) = delete;
  Closer& operator=(const Closer&) = delete;
  // Waits until everything is closed.
  ~Closer();

  void Close(UniqueFd fd);

 private:
  void Run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<UniqueFd> waiting_;
  bool ending_ = false;
  std::thread thread_;  // once there was something to do
};

}  // namespace switchyard::supervisor
