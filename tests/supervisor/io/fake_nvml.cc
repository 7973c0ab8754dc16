// What the driver's management library would say, from one variable of the environment:
// FAKE_NVML_USED, bytes used on its one GPU of 8 GiB, of which the driver reserves 1 GiB.

#include <cstdlib>
#include <cstring>

namespace {

struct MemoryV2 {
  unsigned int version;
  unsigned long long total, reserved, free, used;
};
constexpr unsigned long long kGiB = 1ull << 30;

int Say(const char* text, char* to, unsigned int size) {
  std::strncpy(to, text, size);
  return 0;
}

}  // namespace

extern "C" {
int nvmlInit_v2() { return 0; }
int nvmlShutdown() { return 0; }
int nvmlDeviceGetCount_v2(unsigned int* count) {
  *count = 1;
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned int, void** device) {
  *device = nullptr;
  return 0;
}
int nvmlDeviceGetUUID(void*, char* to, unsigned int size) { return Say("GPU-fake", to, size); }
int nvmlDeviceGetName(void*, char* to, unsigned int size) { return Say("Fake 8 GiB", to, size); }
int nvmlDeviceGetMemoryInfo_v2(void*, MemoryV2* memory) {
  if (memory->version != (sizeof(MemoryV2) | (2u << 24))) return 25;  // argument version mismatch
  const char* used = std::getenv("FAKE_NVML_USED");
  if (used == nullptr) return 15;  // the GPU is lost
  memory->total = 8 * kGiB;
  memory->reserved = 1 * kGiB;
  memory->used = std::strtoull(used, nullptr, 10);
  memory->free = memory->total - memory->reserved - memory->used;
  return 0;
}
int nvmlDeviceGetCudaComputeCapability(void*, int* major, int* minor) {
  *major = 12;
  *minor = 0;
  return 0;
}
}
