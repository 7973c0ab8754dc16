// switchyard-supervisor: owns the devices' memory, runs a worker per model, routes requests to
// them.

#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <string>

#include "common/log.h"
#include "supervisor/check_command.h"
#include "supervisor/options.h"
#include "supervisor/supervisor.h"

namespace switchyard::supervisor {
namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "switchyard-supervisor: %s\n", std::string(status.message()).c_str());
  return 1;
}

int Check(const Options& options) {
  const v1::SupervisorConfig& config = options.config;
  auto budget = FindBudget(
      {config.devices().begin(), config.devices().end()}, config.host_memory(),
      config.has_reserve_bytes() ? std::optional<uint64_t>(config.reserve_bytes()) : std::nullopt);
  if (!budget.ok()) return Fail(budget.status());
  auto catalog = ReadCatalog(options.models_dir, *budget, /*stop_fd=*/-1);
  if (!catalog.ok()) return Fail(catalog.status());
  const std::string text =
      options.json ? CheckJson(*budget, *catalog) : CheckTable(*budget, *catalog);
  std::fputs(text.c_str(), stdout);
  for (const ModelEntry& entry : *catalog) {
    if (!entry.problem.ok()) return 1;
  }
  return 0;
}

// Connections and masters are descriptors; the soft limit is often 1,024.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

int Main(int argc, char** argv) {
  Options options;
  EarlyExit early;
  if (!ParseOptions(argc, argv, &options, &early)) {
    std::fputs(early.text.c_str(), early.code == 0 ? stdout : stderr);
    return early.code;
  }
  if (options.check) return Check(options);

  InitLog("supervisor");
  std::signal(SIGPIPE, SIG_IGN);
  RaiseDescriptorLimit();
  auto supervisor = Supervisor::Start(options);
  if (absl::IsCancelled(supervisor.status())) {  // a signal: a clean end
    LogInfo(std::string(supervisor.status().message()));
    return 0;
  }
  if (!supervisor.ok()) return Fail(supervisor.status());
  std::printf("serving %s\n", FormatHostPort((*supervisor)->address()).c_str());
  std::fflush(stdout);
  (*supervisor)->Run();
  return 0;
}

}  // namespace
}  // namespace switchyard::supervisor

int main(int argc, char** argv) { return switchyard::supervisor::Main(argc, argv); }
