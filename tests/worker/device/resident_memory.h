#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace switchyard::worker {

// Bytes of [address, address + bytes) that have a page behind them: the Rss lines of
// /proc/self/smaps for the mappings that touch the range.
inline uint64_t ResidentBytes(const void* address, uint64_t bytes) {
  std::FILE* file = std::fopen("/proc/self/smaps", "r");
  if (file == nullptr) return 0;
  const auto begin = reinterpret_cast<uintptr_t>(address);
  char line[512];
  uint64_t resident = 0;
  bool inside = false;
  while (std::fgets(line, sizeof(line), file) != nullptr) {
    unsigned long long from, to, kib;
    if (std::sscanf(line, "%llx-%llx ", &from, &to) == 2) {
      inside = from < begin + bytes && to > begin;
    } else if (inside && std::sscanf(line, "Rss: %llu kB", &kib) == 1) {
      resident += kib * 1024;
    }
  }
  std::fclose(file);
  return resident;
}

// Resident memory of the whole process.
inline uint64_t ProcessResidentBytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  unsigned long long total = 0, resident = 0;
  const int got = std::fscanf(file, "%llu %llu", &total, &resident);
  std::fclose(file);
  return got == 2 ? resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) : 0;
}

}  // namespace switchyard::worker
