#include "common/log.h"

#include <cstdio>
#include <cstdlib>

#include "common/check.h"

// The only file that includes spdlog.
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace switchyard {
namespace {

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

}  // namespace

void InitLog(const std::string& process, LogLevel lowest) {
  auto logger = spdlog::stderr_color_mt(process);
  logger->set_level(ToSpdlog(lowest));
  logger->flush_on(spdlog::level::trace);
  logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %^%l%$ %n: %v");
  spdlog::set_default_logger(logger);
}

void LogLine(LogLevel level, const std::string& text) {
  // The text is an argument, never a format: it may hold braces.
  spdlog::default_logger_raw()->log(ToSpdlog(level), "{}", text);
}

void CheckFailed(const char* file, int line, const char* what) {
  std::fprintf(stderr, "%s:%d: broken invariant: %s\n", file, line, what);
  std::fflush(stderr);
  std::abort();
}

}  // namespace switchyard
