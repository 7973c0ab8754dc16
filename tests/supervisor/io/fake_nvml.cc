// What the driver's management library would say of one GPU of 8 GiB, of which the driver reserves
// 1 GiB, from variables of the environment:
//   FAKE_NVML_INIT       what nvmlInit returns
//   FAKE_NVML_GPUS       how many of them there are: GPU-fake, GPU-fake-1, ...
//   FAKE_NVML_DENIED     the index of one that may not be opened
//   FAKE_NVML_USED       bytes used; without it the GPU is lost to this question
//   FAKE_NVML_ENERGY     millijoules of its counter
//   FAKE_NVML_REFUSES    names of the functions that it does not support, each with a comma after
//   it FAKE_NVML_PROCESSES  how many compute on it: 100, 101, ...; process n uses n MiB, and 101
//   does
//                        not say
// Built with WITHOUT_..., it is a driver that does not know the function.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

struct MemoryV2 {
  unsigned int version;
  unsigned long long total, reserved, free, used;
};
struct Utilization {
  unsigned int gpu, memory;
};
struct ProcessV2 {
  unsigned int pid;
  unsigned long long used;
  unsigned int gpu_instance, compute_instance;
};
constexpr unsigned long long kGiB = 1ull << 30;
constexpr unsigned long long kMiB = 1ull << 20;
constexpr int kNotSupported = 3;
constexpr int kNoPermission = 4;
constexpr int kInsufficientSize = 7;

int Say(const char* text, char* to, unsigned int size) {
  std::strncpy(to, text, size);
  return 0;
}

const char* Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

unsigned int Number(const char* name, unsigned int otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr ? otherwise : static_cast<unsigned int>(std::strtoul(value, nullptr, 10));
}

[[maybe_unused]] bool Refuses(const char* function) {
  return std::strstr(Variable("FAKE_NVML_REFUSES"), (std::string(function) + ",").c_str()) !=
         nullptr;
}

[[maybe_unused]] int Processes(unsigned int* count, ProcessV2* to) {
  const unsigned int room = *count;
  *count = Number("FAKE_NVML_PROCESSES", 0);
  if (*count > room) return kInsufficientSize;
  for (unsigned int i = 0; i < *count; ++i) {
    const unsigned int pid = 100 + i;
    to[i] = {pid, pid == 101 ? ~0ull : pid * kMiB, 0, 0};
  }
  return 0;
}

}  // namespace

extern "C" {
int nvmlInit_v2() { return static_cast<int>(Number("FAKE_NVML_INIT", 0)); }
int nvmlShutdown() { return 0; }
const char* nvmlErrorString(int result) {
  if (result == kNoPermission) return "Insufficient Permissions";
  if (result == 15) return "GPU is lost";
  return result == 18 ? "Driver/library version mismatch" : "Unknown Error";
}
int nvmlDeviceGetCount_v2(unsigned int* count) {
  *count = Number("FAKE_NVML_GPUS", 1);
  return Refuses("count") ? kNotSupported : 0;
}
// A handle is the index.
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void** device) {
  *device = reinterpret_cast<void*>(static_cast<uintptr_t>(index));
  if (index == Number("FAKE_NVML_DENIED", ~0u)) return kNoPermission;
  return Refuses("handle") ? kNotSupported : 0;
}
int nvmlDeviceGetUUID(void* device, char* to, unsigned int size) {
  const auto index = reinterpret_cast<uintptr_t>(device);
  const std::string uuid = index == 0 ? "GPU-fake" : "GPU-fake-" + std::to_string(index);
  return Say(uuid.c_str(), to, size);
}
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
#ifndef WITHOUT_UTILIZATION
int nvmlDeviceGetUtilizationRates(void*, Utilization* rates) {
  if (Refuses("utilization")) return kNotSupported;
  *rates = {62, 30};
  return 0;
}
#endif
#ifndef WITHOUT_POWER
int nvmlDeviceGetPowerUsage(void*, unsigned int* milliwatts) {
  if (Refuses("power")) return kNotSupported;
  *milliwatts = 412500;
  return 0;
}
#endif
#ifndef WITHOUT_TEMPERATURE
int nvmlDeviceGetTemperature(void*, int sensor, unsigned int* celsius) {
  if (sensor != 0 || Refuses("temperature")) return kNotSupported;
  *celsius = 54;
  return 0;
}
#endif
#ifndef WITHOUT_ENERGY
int nvmlDeviceGetTotalEnergyConsumption(void*, unsigned long long* millijoules) {
  if (Refuses("energy")) return kNotSupported;
  *millijoules = std::strtoull(Variable("FAKE_NVML_ENERGY"), nullptr, 10);
  return 0;
}
#endif
#ifndef WITHOUT_PROCESSES_V2
int nvmlDeviceGetComputeRunningProcesses_v2(void*, unsigned int* count, ProcessV2* to) {
  return Refuses("processes") ? kNotSupported : Processes(count, to);
}
#endif
#ifndef WITHOUT_PROCESSES_V3
int nvmlDeviceGetComputeRunningProcesses_v3(void*, unsigned int* count, ProcessV2* to) {
  return Refuses("processes") ? kNotSupported : Processes(count, to);
}
#endif
}
