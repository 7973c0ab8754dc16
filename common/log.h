#pragma once

#include <string>

#include "absl/strings/str_cat.h"

namespace switchyard {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// Names the process in every line ("supervisor", "worker austen") and sets the lowest level that is
// written. Lines go to standard error. Prompts and generated text are never logged.
void InitLog(const std::string& process, LogLevel lowest = LogLevel::kInfo);

void LogLine(LogLevel level, const std::string& text);

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
