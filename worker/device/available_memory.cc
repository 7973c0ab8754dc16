#include "worker/device/available_memory.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

namespace switchyard::worker {
namespace {

constexpr uint64_t kUnknown = std::numeric_limits<uint64_t>::max();

// The first `size - 1` bytes of a small file; empty if there is none.
const char* ReadSmall(const char* path, char* buffer, size_t size) {
  buffer[0] = '\0';
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return buffer;
  const ssize_t got = read(fd, buffer, size - 1);
  close(fd);
  buffer[got > 0 ? got : 0] = '\0';
  return buffer;
}

// A file that holds one number; "max" or no file is kUnknown.
uint64_t ReadNumber(const char* path) {
  char buffer[64];
  const char* text = ReadSmall(path, buffer, sizeof(buffer));
  if (*text < '0' || *text > '9') return kUnknown;
  return std::strtoull(text, nullptr, 10);
}

// The number after `key` in a file of "key value" lines.
uint64_t FindNumber(const char* text, const char* key) {
  const char* at = std::strstr(text, key);
  if (at == nullptr) return kUnknown;
  return std::strtoull(at + std::strlen(key), nullptr, 10);
}

uint64_t HostAvailable() {
  char buffer[512];  // MemAvailable is the third line
  const uint64_t kib =
      FindNumber(ReadSmall("/proc/meminfo", buffer, sizeof(buffer)), "MemAvailable:");
  return kib == kUnknown ? kUnknown : kib * 1024;
}

// Inside a container its own group is mounted at the root. Page cache that can be dropped is not a
// use.
uint64_t GroupAvailable(const char* limit_path, const char* usage_path, const char* stat_path,
                        const char* inactive_key) {
  const uint64_t limit = ReadNumber(limit_path);
  const uint64_t usage = ReadNumber(usage_path);
  if (limit == kUnknown || usage == kUnknown) return kUnknown;
  char buffer[4096];
  uint64_t inactive = FindNumber(ReadSmall(stat_path, buffer, sizeof(buffer)), inactive_key);
  if (inactive == kUnknown) inactive = 0;
  const uint64_t used = usage - std::min(usage, inactive);
  return limit - std::min(limit, used);
}

}  // namespace

uint64_t AvailableHostMemory() {
  return std::min({HostAvailable(),
                   GroupAvailable("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current",
                                  "/sys/fs/cgroup/memory.stat", "inactive_file "),
                   GroupAvailable("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                                  "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                                  "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file ")});
}

}  // namespace switchyard::worker
