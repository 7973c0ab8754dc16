#pragma once

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "common/unique_fd.h"
#include "supervisor/event_loop.h"

namespace switchyard::supervisor {

// The read end of a worker's standard error. Always drained, so that the worker never blocks on it;
// lines go on to our own standard error with the worker's name, as far as that takes them, and the
// last ones are kept to tell why it died.
class LogPipe {
 public:
  LogPipe(EventLoop* loop, std::string name, UniqueFd read_end);

  // Reads what is there, but no more than a pipe holds; for the last time after the worker was
  // reaped.
  void Drain();
  std::vector<std::string> last_lines() const;

 private:
  void TakeLine(std::string line);
  void Forward(const std::string& line);

  std::string name_;
  UniqueFd fd_;
  std::unique_ptr<EventLoop::Watch> watch_;  // destroyed before fd_
  std::string partial_;
  std::deque<std::string> last_;
  size_t lost_lines_ = 0;  // not forwarded since the last that was
};

}  // namespace switchyard::supervisor
