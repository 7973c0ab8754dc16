// switchyard-supervisor: owns the devices' memory, runs a worker per model, routes requests to
// them.

#include <malloc.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "supervisor/check_command.h"
#include "supervisor/config_check.h"
#include "supervisor/held_signals.h"
#include "supervisor/library_log.h"
#include "supervisor/options.h"
#include "supervisor/pins.h"
#include "supervisor/supervisor.h"

namespace switchyard::supervisor {
namespace {

constexpr int kFailed = 1;
constexpr int kWrongUsage = 2;

int Fail(const absl::Status& status, bool check, int code = kFailed) {
  PrintError(absl::StrCat(Signature(check), status.message()));
  return code;
}

int CodeOf(const absl::Status& status) {
  return absl::IsInvalidArgument(status) ? kWrongUsage : kFailed;
}

// Output that was cut off, by a full disk say, must not look like success.
int Print(const std::string& text, bool check) {
  const bool written = std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0;
  return written ? 0 : Fail(absl::DataLossError("the output cannot be written"), check);
}

int Check(const Options& options, const Budget& budget) {
  auto catalog = ReadCatalog(options.models_dir, budget, PlanFor::kCheck, /*stop_fd=*/-1);
  if (!catalog.ok()) return Fail(catalog.status(), true);
  FindPinsWithoutRoom(budget.devices, *catalog);
  const std::string text =
      options.json ? CheckJson(budget, *catalog) : CheckTable(budget, *catalog);
  if (const int failed = Print(text, true); failed != 0) return failed;
  for (const ModelEntry& entry : *catalog) {
    if (!entry.problem.ok()) return kFailed;
  }
  const absl::Status known = CheckDefaultModel(options.config.default_model(), *catalog);
  return known.ok() ? 0 : Fail(known, true);
}

// Connections and masters are descriptors; the soft limit is often 1,024.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// What a large request took goes back to the system with it. By itself the C library raises this
// bound to the largest block that was ever freed, and keeps tens of MiB.
void GiveLargeBlocksBack() {
#ifdef __GLIBC__
  ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
  ::mallopt(M_TRIM_THRESHOLD, 4 << 20);
#endif
}

int Main(int argc, char** argv) {
  Options options;
  EarlyExit early;
  if (!ParseOptions(argc, argv, &options, &early)) {
    if (early.code == 0) return Print(early.text, false);
    std::fputs(early.text.c_str(), stderr);
    return early.code;
  }
  GiveLargeBlocksBack();
  InitLog("supervisor");
  QuietLibraries();
  // Workers and planners inherit it: their command line is the model's.
  if (options.config.no_sandbox()) ::setenv("SWITCHYARD_SANDBOX", "off", 1);
  std::vector<StoredDescriptor> stored = TakeStoredDescriptors();
  // Before anything that may start threads, the GPUs' driver for one: they inherit the mask.
  HeldSignals signals;
  std::optional<BackgroundLog> log;
  if (options.check) {
    signals.PassOn();
  } else {
    std::signal(SIGPIPE, SIG_IGN);
    log.emplace();
  }
  const auto budget = ConfiguredBudget(options.config);
  if (!budget.ok()) return Fail(budget.status(), options.check, CodeOf(budget.status()));
  const absl::Status room = options.other_machine ? absl::OkStatus() : CheckMemory(*budget);
  if (!room.ok()) return Fail(room, options.check, CodeOf(room));
  if (options.check) return Check(options, *budget);

  RaiseDescriptorLimit();
  // Whatever workers leave behind stays below us, so that it is known: see peer.h.
  ::prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  auto supervisor = Supervisor::Start(options, *budget, signals, std::move(stored));
  if (absl::IsCancelled(supervisor.status())) {  // a signal: a clean end
    LogInfo(std::string(supervisor.status().message()));
    return 0;
  }
  if (!supervisor.ok()) return Fail(supervisor.status(), false);
  std::printf("serving %s\n", FormatHostPort((*supervisor)->address()).c_str());
  std::fflush(stdout);
  (*supervisor)->Run();
  return 0;
}

}  // namespace
}  // namespace switchyard::supervisor

int main(int argc, char** argv) { return switchyard::supervisor::Main(argc, argv); }
