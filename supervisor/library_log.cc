#include "supervisor/library_log.h"

#include <google/protobuf/stubs/logging.h>
#include <grpc/support/log.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "absl/strings/match.h"
#include "common/clock.h"
#include "common/log.h"

namespace switchyard::supervisor {
namespace {

// One library's lines.
class Warnings {
 public:
  explicit Warnings(const char* library) : library_(library) {}

  void Add(const std::string& file, int line, const std::string& message) {
    const Nanos now = SteadyClock().Now();
    Nanos due = next_line_;
    if (now < due || !next_line_.compare_exchange_strong(due, now + kSecond)) {
      ++left_out_;
      return;
    }
    const uint64_t before = left_out_.exchange(0);
    LogWarning(library_, ", ", file, ":", line, ": ", message,
               before == 0 ? "" : absl::StrCat(" (", before, " lines left out)"));
  }

 private:
  const char* const library_;
  std::atomic<Nanos> next_line_ = 0;
  std::atomic<uint64_t> left_out_ = 0;
};

void HandleProtobuf(google::protobuf::LogLevel, const char* file, int line,
                    const std::string& message) {
  static Warnings warnings("protobuf");
  if (absl::StrContains(message, "invalid UTF-8 data when parsing")) return;
  warnings.Add(file, line, message);
}

// What $GRPC_VERBOSITY lets through, errors unless it is set.
void HandleGrpc(gpr_log_func_args* args) {
  static Warnings warnings("gRPC");
  const std::string file = args->file;
  warnings.Add(file.substr(file.rfind('/') + 1), args->line, args->message);
}

}  // namespace

void QuietLibraries() {
  google::protobuf::SetLogHandler(HandleProtobuf);
  ::unsetenv("GRPC_TRACE");
  gpr_set_log_function(HandleGrpc);
}

}  // namespace switchyard::supervisor
