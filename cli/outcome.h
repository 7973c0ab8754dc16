#pragma once

#include "absl/status/status.h"

namespace switchyard::cli {

// Exit codes. Other programs depend on them.
enum ExitCode {
  kDone = 0,
  kRefused = 1,  // by the server; or what came could not be written
  kWrongUsage = 2,
  kNoConnection = 3,   // or it was lost on the way
  kInterrupted = 130,  // as a shell says of a program that Ctrl-C ended
};

// 0, or 1 with "switchyard: CODE: message" on standard error.
int Outcome(const absl::Status& status);

}  // namespace switchyard::cli
