#include "supervisor/log_pipe.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"

namespace switchyard::supervisor {
namespace {

constexpr size_t kKeptLines = 20;
constexpr size_t kLongestLine = 4000;
// As much as a pipe holds: all that a worker which has ended left behind, and one that never pauses
// does not keep the loop to itself.
constexpr size_t kMostAtOnce = 64 << 10;

}  // namespace

LogPipe::LogPipe(EventLoop* loop, std::string name, UniqueFd read_end)
    : name_(std::move(name)), fd_(std::move(read_end)) {
  ::fcntl(fd_.get(), F_SETFL, O_NONBLOCK);
  watch_ = loop->WatchReadable(fd_.get(), [this] { Drain(); });
}

void LogPipe::Drain() {
  char buffer[16384];
  for (size_t left = kMostAtOnce; left > 0 && fd_.valid();) {
    const ssize_t got = ::read(fd_.get(), buffer, std::min(left, sizeof(buffer)));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {  // the worker closed it
      if (!partial_.empty()) TakeLine(std::exchange(partial_, ""));
      watch_.reset();
      fd_.Reset();
      return;
    }
    left -= static_cast<size_t>(got);
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
  Forward(line);
  last_.push_back(std::move(line));
  if (last_.size() > kKeptLines) last_.pop_front();
}

void LogPipe::Forward(const std::string& line) {
  if (lost_lines_ > 0 && ForwardLine(absl::StrCat("[", name_, "] (", lost_lines_,
                                                  " lines lost: standard error took no more)"))) {
    lost_lines_ = 0;
  }
  if (lost_lines_ > 0 || !ForwardLine(absl::StrCat("[", name_, "] ", line))) ++lost_lines_;
}

}  // namespace switchyard::supervisor
