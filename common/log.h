#pragma once

#include <string>

#include "absl/strings/str_cat.h"

namespace switchyard {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Names the process in every line ("supervisor", "worker austen") and sets the lowest level that is
// written. Lines go to standard error. Prompts and generated text are never logged.
void InitLog(const std::string& process, LogLevel lowest = LogLevel::kInfo);

// While it lives, a thread writes the lines, in their order: whoever logs waits for no reader, but
// for 10 ms when one ceases to read. Lines that wait for one take 256 KiB at most; how many were
// lost beyond that is told once it reads again. At the end it waits half a second for what is left.
// Without it whoever logs writes.
class BackgroundLog {
 public:
  BackgroundLog();
  ~BackgroundLog();
  BackgroundLog(const BackgroundLog&) = delete;
  BackgroundLog& operator=(const BackgroundLog&) = delete;
};

void LogLine(LogLevel level, const std::string& text);
// A line as it is, for people, among those of the log.
void PrintError(const std::string& line);
// The same of another process's line. False if there is no room for it, which only half of ours is.
bool ForwardLine(const std::string& line);

template <typename... Args>
void LogDebug(const Args&... args) {
  LogLine(LogLevel::kDebug, absl::StrCat(args...));
}
template <typename... Args>
void LogInfo(const Args&... args) {
  LogLine(LogLevel::kInfo, absl::StrCat(args...));
}
template <typename... Args>
void LogWarning(const Args&... args) {
  LogLine(LogLevel::kWarning, absl::StrCat(args...));
}
template <typename... Args>
void LogError(const Args&... args) {
  LogLine(LogLevel::kError, absl::StrCat(args...));
}

}  // namespace switchyard
