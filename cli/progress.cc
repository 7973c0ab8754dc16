#include "cli/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "cli/outcome.h"
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
      std::printf("\r%s %s %s\033[K", model.c_str(), Bar(event).c_str(), SwitchText(event).c_str());
      std::fflush(stdout);
    } else if (event.phase() != last) {
      std::printf("%s: %s\n", model.c_str(), SwitchText(event).c_str());
      std::fflush(stdout);
    }
    last = event.phase();
    if (event.phase() == v1::SWITCH_FAILED) failed = absl::FailedPreconditionError(event.error());
  });
  if (!json && terminal && last != v1::SWITCH_PHASE_UNSPECIFIED) std::printf("\n");
  if (!status.ok()) return Outcome(status);
  return Outcome(failed);
}

}  // namespace switchyard::cli
