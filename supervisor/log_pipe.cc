#include "supervisor/log_pipe.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

namespace switchyard::supervisor {
namespace {

constexpr size_t kKeptLines = 20;
constexpr size_t kLongestLine = 4096;

}  // namespace

LogPipe::LogPipe(EventLoop* loop, std::string name, UniqueFd read_end)
    : name_(std::move(name)), fd_(std::move(read_end)) {
  ::fcntl(fd_.get(), F_SETFL, O_NONBLOCK);
  watch_ = loop->WatchReadable(fd_.get(), [this] { Drain(); });
}

void LogPipe::Drain() {
  char buffer[16384];
  while (fd_.valid()) {
    const ssize_t got = ::read(fd_.get(), buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {  // the worker closed it
      if (!partial_.empty()) TakeLine(std::exchange(partial_, ""));
      watch_.reset();
      fd_.Reset();
      return;
    }
    for (ssize_t i = 0; i < got; ++i) {
      if (buffer[i] == '\n' || partial_.size() >= kLongestLine) {
        TakeLine(std::exchange(partial_, ""));
      }
      if (buffer[i] != '\n') partial_.push_back(buffer[i]);
    }
  }
}

std::vector<std::string> LogPipe::last_lines() const { return {last_.begin(), last_.end()}; }

void LogPipe::TakeLine(std::string line) {
  std::fprintf(stderr, "[%s] %s\n", name_.c_str(), line.c_str());
  last_.push_back(std::move(line));
  if (last_.size() > kKeptLines) last_.pop_front();
}

}  // namespace switchyard::supervisor
