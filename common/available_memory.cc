#include "common/available_memory.h"

#include <algorithm>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/control_groups.h"
#include "common/human.h"
#include "common/status_macros.h"

namespace switchyard {
namespace {

constexpr char kHostShort[] = "switchyard/host-short";  // a payload

std::optional<uint64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (!(file >> value)) return std::nullopt;  // "max", or no such file
  return value;
}

uint64_t PageCacheOf(const std::string& path) {
  std::ifstream file(path);
  return PageCacheInGroup(file);
}

void Tighten(const std::string& directory, const char* limit_file, const char* used_file,
             uint64_t* available) {
  const auto limit = ReadNumber(directory + limit_file);
  const auto used = ReadNumber(directory + used_file);
  if (!limit || !used) return;
  const uint64_t reclaimable = std::min(*used, PageCacheOf(directory + "/memory.stat"));
  const uint64_t held = *used - reclaimable;
  *available = std::min(*available, *limit > held ? *limit - held : 0);
}

absl::StatusOr<uint64_t> ReadMeminfo(const std::string& wanted) {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string key;
    uint64_t kib = 0;
    if (words >> key >> kib && key == wanted) return kib * 1024;
  }
  return absl::UnavailableError(absl::StrCat("/proc/meminfo does not tell ", wanted));
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

uint64_t PageCacheInGroup(std::istream& memory_stat) {
  uint64_t own = 0, all = 0;
  std::string key;
  for (uint64_t value = 0; memory_stat >> key >> value;) {
    if (key == "inactive_file" || key == "active_file") own += value;
    if (key == "total_inactive_file" || key == "total_active_file") all += value;
  }
  return std::max(own, all);
}

absl::StatusOr<uint64_t> AvailableMemory() {
  ASSIGN_OR_RETURN(uint64_t available, ReadMeminfo("MemAvailable:"));
  TightenByControlGroups(&available);
  return available;
}

absl::StatusOr<uint64_t> TotalMemory() {
  ASSIGN_OR_RETURN(uint64_t total, ReadMeminfo("MemTotal:"));
  VisitControlGroups("memory", [&](const std::string& directory, bool v2) {
    const auto limit = ReadNumber(directory + (v2 ? "/memory.max" : "/memory.limit_in_bytes"));
    if (limit) total = std::min(total, *limit);
  });
  return total;
}

absl::Status CheckHostHas(uint64_t bytes) {
  return CheckHostHas(bytes, AvailableMemory().value_or(UINT64_MAX));
}

absl::Status CheckHostHas(uint64_t bytes, uint64_t available) {
  if (available >= kHostReserve && bytes <= available - kHostReserve) return absl::OkStatus();
  return HostShort(absl::StrCat(
      "the host is short of memory: ", HumanBytes(bytes, available), " more are needed beside ",
      HumanBytes(kHostReserve), " that stay free, and ", HumanBytes(available, bytes),
      " are available. Others have the rest: end some of them, or lower --host-memory, or the "
      "size of cpu where that is a device"));
}

absl::Status HostShort(const std::string& message) {
  absl::Status status = absl::ResourceExhaustedError(message);
  status.SetPayload(kHostShort, absl::Cord("1"));
  return status;
}

bool IsHostShort(const absl::Status& status) { return status.GetPayload(kHostShort).has_value(); }

}  // namespace switchyard
