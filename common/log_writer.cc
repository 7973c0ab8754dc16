#include "common/log_writer.h"

#include <poll.h>
#include <pthread.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"

namespace switchyard {
namespace {

// Where nothing can be written, to a full disk say, the line is lost: nobody could be told.
void WriteAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t put = ::write(fd, text.data(), text.size());
    if (put > 0) {
      text.remove_prefix(static_cast<size_t>(put));
    } else if (put < 0 && errno == EAGAIN) {  // another process made it non-blocking for all
      pollfd room{fd, POLLOUT, 0};
      ::poll(&room, 1, -1);
    } else if (put == 0 || errno != EINTR) {
      return;
    }
  }
}

}  // namespace

LogWriter::~LogWriter() {
  if (thread_.joinable()) thread_.join();
}

void LogWriter::Start() {
  std::lock_guard lock(mutex_);
  if (thread_.joinable()) return;
  stopping_ = false;
  started_ = true;
  thread_ = std::thread([this] { Run(); });
}

bool LogWriter::Stop(Nanos patience) {
  std::unique_lock lock(mutex_);
  if (!thread_.joinable()) return true;
  stopping_ = true;
  came_.notify_one();
  if (!AllWritten(lock, patience)) return false;
  started_ = false;
  lock.unlock();
  thread_.join();
  return true;
}

bool LogWriter::Flush(Nanos patience) {
  std::unique_lock lock(mutex_);
  return AllWritten(lock, patience);
}

bool LogWriter::AllWritten(std::unique_lock<std::mutex>& lock, Nanos patience) {
  return written_.wait_for(lock, std::chrono::nanoseconds(patience),
                           [this] { return waiting_.empty(); });
}

void LogWriter::Write(std::string line) {
  std::unique_lock lock(mutex_);
  if (!started_) return WriteAll(fd_, line);
  if (lost_ > 0 || waiting_bytes_ + line.size() > kMostWaiting) {
    ++lost_;
    return;
  }
  Push(std::move(line));
  if (behind_) return;
  const bool out = written_.wait_for(lock, std::chrono::nanoseconds(patience_),
                                     [this, mine = came_count_] { return written_count_ >= mine; });
  if (!out) behind_ = true;
}

bool LogWriter::Forward(std::string line) {
  std::lock_guard lock(mutex_);
  if (!started_) {
    WriteAll(fd_, line);
    return true;
  }
  if (lost_ > 0 || waiting_bytes_ + line.size() > kMostWaiting / 2) return false;
  Push(std::move(line));
  return true;
}

void LogWriter::Push(std::string line) {
  waiting_bytes_ += line.size();
  waiting_.push_back(std::move(line));
  ++came_count_;
  came_.notify_one();
}

void LogWriter::Run() {
  ::pthread_setname_np(::pthread_self(), "log");
  std::unique_lock lock(mutex_);
  while (true) {
    came_.wait(lock, [this] { return !waiting_.empty() || stopping_; });
    if (waiting_.empty()) return;
    const std::string& line = waiting_.front();
    lock.unlock();
    WriteAll(fd_, line);
    lock.lock();
    waiting_bytes_ -= line.size();
    waiting_.pop_front();
    ++written_count_;
    if (waiting_.empty()) {
      behind_ = false;
      if (lost_ > 0) {
        Push(absl::StrCat("(", std::exchange(lost_, 0),
                          " lines lost: standard error took no more)\n"));
      }
    }
    written_.notify_all();
  }
}

}  // namespace switchyard
