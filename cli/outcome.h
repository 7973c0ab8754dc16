#pragma once

#include "absl/status/status.h"

namespace switchyard::cli {

// Exit codes. Other programs depend on them. kNoConnection: also when it is lost on the way.
enum ExitCode { kDone = 0, kRefused = 1, kWrongUsage = 2, kNoConnection = 3 };

// 0, or 1 with "switchyard: CODE: message" on standard error.
int Outcome(const absl::Status& status);

}  // namespace switchyard::cli
