#include "common/available_memory.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

#include "common/control_groups.h"

namespace switchyard {
namespace {

std::optional<uint64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (!(file >> value)) return std::nullopt;  // "max", or no such file
  return value;
}

// Pages of the page cache count as used, though they would be given up: they are added back.
uint64_t ReadReclaimable(const std::string& path) {
  std::ifstream file(path);
  std::string key;
  uint64_t value = 0;
  while (file >> key >> value) {
    if (key == "inactive_file" || key == "total_inactive_file") return value;
  }
  return 0;
}

void Tighten(const std::string& directory, const char* limit_file, const char* used_file,
             uint64_t* available) {
  const auto limit = ReadNumber(directory + limit_file);
  const auto used = ReadNumber(directory + used_file);
  if (!limit || !used) return;
  const uint64_t reclaimable = std::min(*used, ReadReclaimable(directory + "/memory.stat"));
  const uint64_t held = *used - reclaimable;
  *available = std::min(*available, *limit > held ? *limit - held : 0);
}

void TightenByControlGroups(uint64_t* available) {
  VisitControlGroups("memory", [&](const std::string& directory, bool v2) {
    if (v2) {
      Tighten(directory, "/memory.max", "/memory.current", available);
    } else {
      Tighten(directory, "/memory.limit_in_bytes", "/memory.usage_in_bytes", available);
    }
  });
}

}  // namespace

absl::StatusOr<uint64_t> AvailableMemory() {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string key;
    uint64_t kib = 0;
    if (words >> key >> kib && key == "MemAvailable:") {
      uint64_t available = kib * 1024;
      TightenByControlGroups(&available);
      return available;
    }
  }
  return absl::UnavailableError("/proc/meminfo does not tell how much memory is available");
}

}  // namespace switchyard
