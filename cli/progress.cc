#include "cli/progress.h"

#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "cli/outcome.h"
#include "cli/output.h"
#include "cli/render.h"

namespace switchyard::cli {
namespace {

constexpr int kBarWidth = 30;

std::string Bar(const v1::SwitchEvent& event) {
  const double part = event.phase() == v1::READY ? 1
                      : event.bytes_total() == 0
                          ? 0
                          : std::min(1.0, static_cast<double>(event.bytes_done()) /
                                              static_cast<double>(event.bytes_total()));
  const int full = static_cast<int>(part * kBarWidth);
  return "[" + std::string(full, '=') + std::string(kBarWidth - full, ' ') + "]";
}

}  // namespace

int ShowProgress(const std::string& model, bool json,
                 const std::function<absl::Status(const Client::OnSwitchEvent&)>& run) {
  const bool terminal = ::isatty(STDOUT_FILENO) != 0;
  v1::SwitchPhase last = v1::SWITCH_PHASE_UNSPECIFIED;
  absl::Status failed;
  const absl::Status status = run([&](const v1::SwitchEvent& event) {
    if (json) {
      PrintJson(SwitchJson(event));
    } else if (terminal) {
      Print(absl::StrCat("\r", model, " ", Bar(event), " ", SwitchText(event), "\033[K"));
    } else if (event.phase() != last) {
      Print(absl::StrCat(model, ": ", SwitchText(event), "\n"));
    }
    last = event.phase();
    if (event.phase() == v1::SWITCH_FAILED) failed = absl::FailedPreconditionError(event.error());
    return !OutputFailed();
  });
  if (!json && terminal && last != v1::SWITCH_PHASE_UNSPECIFIED) Print("\n");
  if (OutputFailed()) return kRefused;
  if (!status.ok()) return Outcome(status);
  return Outcome(failed);
}

}  // namespace switchyard::cli
