#include "common/log.h"

#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "common/check.h"
#include "common/log_writer.h"

// The only file that includes spdlog.
#include <spdlog/details/os.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/sink.h>
#include <spdlog/spdlog.h>

namespace switchyard {
namespace {

// As long as any scheduling takes, and short to whoever is served.
constexpr Nanos kLinePatience = 10 * kMillisecond;
// For what is left at the end, which must be over in time.
constexpr Nanos kLastPatience = 500 * kMillisecond;

// Never destroyed: lines may come, and its thread may wait for a reader, until the process is gone.
LogWriter& Writer() {
  static auto* const writer = new LogWriter(STDERR_FILENO, kLinePatience);
  return *writer;
}

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

const char* ColorOf(spdlog::level::level_enum level) {
  if (level == spdlog::level::err) return "\033[1m\033[31m";
  if (level == spdlog::level::warn) return "\033[1m\033[33m";
  return level == spdlog::level::info ? "\033[32m" : "\033[36m";
}

bool OnColorTerminal() {
  return ::isatty(STDERR_FILENO) != 0 && spdlog::details::os::is_color_terminal();
}

// spdlog's own sinks write where they are called.
class WriterSink final : public spdlog::sinks::sink {
 public:
  void log(const spdlog::details::log_msg& message) override { Writer().Write(Format(message)); }
  void flush() override {}
  void set_pattern(const std::string& pattern) override {
    set_formatter(std::make_unique<spdlog::pattern_formatter>(pattern));
  }
  void set_formatter(std::unique_ptr<spdlog::formatter> formatter) override {
    std::lock_guard lock(mutex_);
    formatter_ = std::move(formatter);
  }

 private:
  std::string Format(const spdlog::details::log_msg& message) {
    spdlog::memory_buf_t text;
    std::lock_guard lock(mutex_);
    formatter_->format(message, text);
    std::string line(text.data(), text.size());
    if (color_ && message.color_range_start < message.color_range_end) {
      line.insert(message.color_range_end, "\033[m");
      line.insert(message.color_range_start, ColorOf(message.level));
    }
    return line;
  }

  const bool color_ = OnColorTerminal();
  std::mutex mutex_;  // a formatter keeps what it made of the time
  std::unique_ptr<spdlog::formatter> formatter_ = std::make_unique<spdlog::pattern_formatter>();
};

}  // namespace

void InitLog(const std::string& process, LogLevel lowest) {
  auto logger = std::make_shared<spdlog::logger>(process, std::make_shared<WriterSink>());
  logger->set_level(ToSpdlog(lowest));
  logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %^%l%$ %n: %v");
  spdlog::set_default_logger(logger);
}

void LogLine(LogLevel level, const std::string& text) {
  // The text is an argument, never a format: it may hold braces.
  spdlog::default_logger_raw()->log(ToSpdlog(level), "{}", text);
}

void PrintError(const std::string& line) { Writer().Write(line + "\n"); }

bool ForwardLine(const std::string& line) { return Writer().Forward(line + "\n"); }

BackgroundLog::BackgroundLog() { Writer().Start(); }
BackgroundLog::~BackgroundLog() { Writer().Stop(kLastPatience); }

void CheckFailed(const char* file, int line, const char* what) {
  PrintError(absl::StrCat(file, ":", line, ": broken invariant: ", what));
  Writer().Flush(kLastPatience);
  std::abort();
}

}  // namespace switchyard
