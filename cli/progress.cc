#include "cli/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/outcome.h"
#include "cli/render.h"
#include "common/human.h"

namespace switchyard::cli {
namespace {

constexpr int kBarWidth = 30;

// "loading    12.3 MiB of 40.0 MiB  3.21 GB/s  2 s left"
std::string Describe(const v1::SwitchEvent& event) {
  std::string text = absl::StrFormat("%-10s", PhaseName(event.phase()));
  if (event.queue_position() > 0) {
    absl::StrAppend(&text, "number ", event.queue_position(), " in the queue");
  }
  if (event.bytes_total() > 0) {
    absl::StrAppend(&text, HumanBytes(event.bytes_done()), " of ", HumanBytes(event.bytes_total()));
  }
  if (event.gb_per_s() > 0) absl::StrAppendFormat(&text, "  %.2f GB/s", event.gb_per_s());
  if (event.seconds_left() >= 1)
    absl::StrAppendFormat(&text, "  %.0f s left", event.seconds_left());
  return text;
}

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
      std::printf("\r%s %s %s\033[K", model.c_str(), Bar(event).c_str(), Describe(event).c_str());
      std::fflush(stdout);
    } else if (event.phase() != last) {
      std::printf("%s: %s\n", model.c_str(), Describe(event).c_str());
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
