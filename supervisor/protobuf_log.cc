#include "supervisor/protobuf_log.h"

#include <google/protobuf/stubs/logging.h>

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/strings/match.h"
#include "common/clock.h"
#include "common/log.h"

namespace switchyard::supervisor {
namespace {

std::atomic<Nanos> next_line = 0;
std::atomic<uint64_t> left_out = 0;

void Handle(google::protobuf::LogLevel, const char* file, int line, const std::string& message) {
  if (absl::StrContains(message, "invalid UTF-8 data when parsing")) return;
  const Nanos now = SteadyClock().Now();
  Nanos due = next_line;
  if (now < due || !next_line.compare_exchange_strong(due, now + kSecond)) {
    ++left_out;
    return;
  }
  const uint64_t before = left_out.exchange(0);
  LogWarning("protobuf, ", file, ":", line, ": ", message,
             before == 0 ? "" : absl::StrCat(" (", before, " lines left out)"));
}

}  // namespace

void QuietProtobufLog() { google::protobuf::SetLogHandler(Handle); }

}  // namespace switchyard::supervisor
