#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>

#include "common/clock.h"

namespace switchyard {

// Writes lines to a descriptor in the order in which they come, from any thread. Once it is started
// a thread of its own does that: what reads a log may be a stopped terminal, a program that does
// not read, or a disk that hangs, and then only that thread waits for it.
class LogWriter {
 public:
  // Lines that are not written yet may take so much, and those that are forwarded half of it: a
  // worker that never pauses takes no room from what we say ourselves.
  static constexpr size_t kMostWaiting = 256 << 10;

  // `patience`: how long Write waits for a line to be out, so that no line is lost if the process
  // ends with the next instruction.
  LogWriter(int fd, Nanos patience) : fd_(fd), patience_(patience) {}
  ~LogWriter();
  LogWriter(const LogWriter&) = delete;
  LogWriter& operator=(const LogWriter&) = delete;

  // The thread takes the signals that the caller's takes.
  void Start();
  // Waits so long for the lines that are left, then ends the thread. False if they are still there:
  // the thread goes on.
  bool Stop(Nanos patience);

  // While one line was not out in time, the next ones are not waited for. A line without room is
  // lost; how many were is told in their place.
  void Write(std::string line);
  // Does not wait at all. False, and nothing is written, if there is no room.
  bool Forward(std::string line);
  // Waits so long for all lines to be out. False if some are not.
  bool Flush(Nanos patience);

 private:
  void Run();
  // These hold mutex_.
  void Push(std::string line);
  bool AllWritten(std::unique_lock<std::mutex>& lock, Nanos patience);

  const int fd_;
  const Nanos patience_;
  std::mutex mutex_;
  std::condition_variable came_, written_;
  std::deque<std::string> waiting_;  // the first is being written
  size_t waiting_bytes_ = 0;
  uint64_t came_count_ = 0, written_count_ = 0;
  size_t lost_ = 0;       // since the last time that all were written
  bool behind_ = false;   // a line was not out in time, since then
  bool started_ = false;  // lines are the thread's to write
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace switchyard
