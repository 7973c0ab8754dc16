#include "common/usable_cores.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>
#include <thread>

#include "common/control_groups.h"

namespace switchyard {
namespace {

std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

int CoresOfAffinity() {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

}  // namespace

std::optional<int> CoresOfQuota(const std::string& cpu_max) {
  std::istringstream words(cpu_max);
  int64_t quota = 0, period = 0;  // microseconds; version 2 says "max", version 1 says -1
  if (!(words >> quota >> period) || quota <= 0 || period <= 0) return std::nullopt;
  const int64_t cores = quota / period + (quota % period != 0 ? 1 : 0);
  return static_cast<int>(std::min<int64_t>(cores, std::numeric_limits<int>::max()));
}

int UsableCores() {
  int cores = CoresOfAffinity();
  VisitControlGroups("cpu", [&](const std::string& directory, bool v2) {
    const std::string quota = v2 ? FirstLine(directory + "/cpu.max")
                                 : FirstLine(directory + "/cpu.cfs_quota_us") + " " +
                                       FirstLine(directory + "/cpu.cfs_period_us");
    cores = std::min(cores, CoresOfQuota(quota).value_or(cores));
  });
  return cores;
}

}  // namespace switchyard
