#pragma once

#include <functional>
#include <string>

#include "cli/client.h"

namespace switchyard::cli {

// Runs a Switch or a Load and shows its events: JSON lines, a bar if standard output is a terminal,
// else a line a phase. Returns the exit code.
int ShowProgress(const std::string& model, bool json,
                 const std::function<absl::Status(const Client::OnSwitchEvent&)>& run);

}  // namespace switchyard::cli
